import LorryModel

/// Which adapters are in memory, the loads under way, and who uses what. Owned by the engine thread.
///
/// An adapter is charged to the pool before it is loaded, and may be evicted while no running
/// sequence has a lease on it. Every change that bears on that is noted when it happens, so that a
/// step costs nothing however many adapters there are.
package final class AdapterResidency {
    /// What holds a waiting sequence back.
    package enum Readiness: Sendable {
        case ready
        /// Its adapter is on its way.
        case loading
        /// There is no room for its adapter until something running ends.
        case lacksRoom
    }

    private enum State {
        case loading(since: ContinuousClock.Instant)
        case resident(AdapterProgram, since: ContinuousClock.Instant)
    }

    private struct Entry {
        let id: AdapterVersionID
        let name: String
        var blocks: [BlockID]
        var byteCount: Int
        var state: State
        /// Sequences that ran with it.
        var useCount = 0
        /// Belongs to the plan being made, which must not evict it for others.
        var isPlanned = false
    }

    private let pool: MemoryPool
    private let startLoad: (AdapterReference) -> Void
    /// What others may know of the adapters in use.
    package let roster = AdapterRoster()
    private var entries = Slots<Entry>()
    private var slots: [AdapterVersionID: Int] = [:]
    private var users = AdapterUsers()
    private var plannedSlots: [Int] = []
    private var pinned: Set<AdapterVersionID> = []
    /// Deleted or replaced versions: evicted as soon as nobody wants them any more.
    private var forgotten: Set<AdapterVersionID> = []
    package private(set) var loadCount = 0
    /// Of the resident adapters together.
    package private(set) var byteCount = 0
    package var onEvict: (String) -> Void = { _ in }

    /// - Parameter startLoad: returns at once; `finishLoad` is to be called when the load has ended.
    package init(pool: MemoryPool, startLoad: @escaping (AdapterReference) -> Void) {
        self.pool = pool
        self.startLoad = startLoad
        pool.evictAdapter = { [unowned self] slot in evict(slot) }
    }

    package var hasLoads: Bool { loadCount > 0 }

    package func program(_ id: AdapterVersionID) -> AdapterProgram? {
        guard let slot = slots[id], case .resident(let program, _)? = entries[slot]?.state else {
            return nil
        }
        return program
    }

    package func state(_ id: AdapterVersionID) -> AdapterState {
        guard let slot = slots[id], let entry = entries[slot] else { return .absent }
        if case .resident = entry.state { return .ready }
        return .loading
    }

    /// Since when the adapter has been resident; nil where it is not.
    package func readySince(_ id: AdapterVersionID) -> ContinuousClock.Instant? {
        guard let slot = slots[id], case .resident(_, let since)? = entries[slot]?.state else {
            return nil
        }
        return since
    }

    // MARK: - Who wants what

    /// A sequence has come that wants the adapter, and waits.
    package func join(_ reference: AdapterReference) {
        change(reference.id, name: reference.name) { $0.waitingCount += 1 }
    }

    /// A waiting sequence has gone.
    package func leave(_ id: AdapterVersionID) {
        change(id) { $0.waitingCount -= 1 }
        guard users[id] == nil, forgotten.contains(id) else { return }
        evictForgotten(id)
    }

    /// A waiting sequence runs, and keeps the adapter resident until its lease is released.
    package func acquireLease(_ id: AdapterVersionID) {
        if let slot = slots[id] { entries[slot]?.useCount += 1 }
        change(id) {
            $0.waitingCount -= 1
            $0.runningCount += 1
        }
    }

    /// A running sequence waits again, or is about to leave.
    package func releaseLease(_ id: AdapterVersionID) {
        change(id) {
            $0.waitingCount += 1
            $0.runningCount -= 1
        }
    }

    package func leaseCount(_ id: AdapterVersionID) -> Int { users[id]?.runningCount ?? 0 }

    /// Of all adapters together.
    package var leaseCount: Int { users.runningCount }

    private func change(
        _ id: AdapterVersionID, name: String? = nil, _ body: (inout AdapterUsers.Count) -> Void
    ) {
        let after = users.change(id, body)
        roster.setUsers(
            of: id, name: name, waiting: after.waitingCount, running: after.runningCount)
        if let slot = slots[id] { refresh(slot) }
    }

    /// Tells the pool whether an adapter may be evicted.
    private func refresh(_ slot: Int) {
        guard let entry = entries[slot] else { return }
        let users = users[entry.id]
        guard case .resident = entry.state, users?.runningCount ?? 0 == 0, !entry.isPlanned else {
            pool.policy.withdraw(slot: slot)
            return
        }
        let standing: EvictionPolicy.Standing =
            if pinned.contains(entry.id) {
                .pinned
            } else if let users {
                .awaited(since: users.waitsSince)
            } else {
                .idle
            }
        guard pool.policy.standing(slot: slot) != standing else { return }
        pool.policy.offer(
            slot: slot, standing, blockCount: entry.blocks.count, uses: entry.useCount)
    }

    // MARK: - Loads

    /// What the plan before this one used may be evicted again.
    package func beginPlan() {
        for slot in plannedSlots where entries[slot]?.isPlanned == true {
            entries[slot]?.isPlanned = false
            refresh(slot)
        }
        plannedSlots.removeAll(keepingCapacity: true)
    }

    /// Says whether the adapter is resident. Starts its load where it is absent and room can be
    /// made; evicts nothing where that would not suffice.
    ///
    /// - Parameters:
    ///   - spareBlockCount: blocks that must be free or evictable beside the adapter, so that what
    ///     it is loaded for can run without evicting it, or others, again.
    ///   - isAhead: nobody can run with it yet. What others wait for is not evicted then, nor what
    ///     is worth more than an adapter that is sure to be used.
    package func prepare(
        _ reference: AdapterReference, sparing spareBlockCount: Int, isAhead: Bool = false,
        now: ContinuousClock.Instant
    ) -> Readiness {
        if let slot = slots[reference.id], let entry = entries[slot] {
            guard case .resident = entry.state else { return .loading }
            if !isAhead, !entry.isPlanned {
                entries[slot]?.isPlanned = true
                plannedSlots.append(slot)
                pool.policy.withdraw(slot: slot)
            }
            return .ready
        }
        let count = pool.blocks(forByteCount: reference.byteCount)
        let reach = isAhead ? .idle : pool.reach
        guard pool.availableCount(reach) >= count + spareBlockCount else { return .lacksRoom }
        let bound = isAhead ? pool.policy.bound(pool.policy.worth(uses: .max)) : .infinity
        while pool.freeCount < count, pool.evictOne(reach, below: bound) {}
        guard let blocks = pool.reserveForAdapter(byteCount: reference.byteCount) else {
            return .lacksRoom
        }
        slots[reference.id] = entries.insert(
            Entry(
                id: reference.id, name: reference.name, blocks: blocks,
                byteCount: reference.byteCount, state: .loading(since: now)))
        loadCount += 1
        startLoad(reference)
        return .loading
    }

    /// - Returns: how long the load took.
    package func finishLoad(
        _ id: AdapterVersionID, _ program: AdapterProgram?, now: ContinuousClock.Instant
    ) -> Duration {
        guard let slot = slots[id], let entry = entries[slot],
            case .loading(let since) = entry.state
        else { return .zero }
        loadCount -= 1
        guard let program else {
            remove(slot, entry)
            return now - since
        }
        entries[slot]?.state = .resident(program, since: now)
        byteCount += entry.byteCount
        pool.policy.costs.noteLoad(byteCount: entry.byteCount, now - since)
        roster.setResident(
            id, name: entry.name, byteCount: entry.byteCount, isPinned: pinned.contains(id))
        refresh(slot)
        if users[id] == nil, forgotten.contains(id) { evictForgotten(id) }
        return now - since
    }

    /// Charges a loaded program for what it really takes, where that is more than was announced:
    /// its size may have been noted when weights were held in another format.
    ///
    /// - Returns: false where there is no room; `finishLoad` is then to be told of a failure.
    package func chargeFully(_ id: AdapterVersionID, _ program: AdapterProgram) -> Bool {
        guard let slot = slots[id], let entry = entries[slot] else { return true }
        let missing = pool.blocks(forByteCount: program.byteCount) - entry.blocks.count
        guard missing > 0 else { return true }
        while pool.freeCount < missing, pool.evictOne(.awaited) {}
        guard let more = pool.reserveForAdapter(byteCount: missing * pool.blockByteCount) else {
            return false
        }
        entries[slot]?.blocks += more
        entries[slot]?.byteCount = program.byteCount
        return true
    }

    // MARK: - Pins and evictions

    package func setPinned(_ id: AdapterVersionID, _ isPinned: Bool) {
        if isPinned {
            pinned.insert(id)
            // The same content may be back after a delete that is still waiting to take effect.
            forgotten.remove(id)
        } else {
            pinned.remove(id)
        }
        roster.setPinned(id, isPinned)
        if let slot = slots[id] { refresh(slot) }
    }

    /// Evicts a version, and what is cached of it, as soon as no sequence wants it any more.
    package func forget(_ id: AdapterVersionID) {
        setPinned(id, false)
        pool.forgetPrefixes(of: id)
        forgotten.insert(id)
        if users[id] == nil { evictForgotten(id) }
    }

    private func evictForgotten(_ id: AdapterVersionID) {
        if let slot = slots[id] {
            guard case .resident? = entries[slot]?.state else { return }
            evict(slot)
        }
        forgotten.remove(id)
        // What its last sequences have left.
        pool.forgetPrefixes(of: id)
    }

    private func evict(_ slot: Int) {
        guard let entry = entries[slot] else { return }
        pool.policy.withdraw(slot: slot)
        byteCount -= entry.byteCount
        remove(slot, entry)
        roster.setEvicted(entry.id)
        onEvict(entry.name)
    }

    private func remove(_ slot: Int, _ entry: Entry) {
        pool.releaseFromAdapter(entry.blocks)
        entries[slot] = nil
        slots[entry.id] = nil
    }

    // MARK: - Checks

    /// Looks for a contradiction between what is noted here and in the pool.
    ///
    /// - Returns: what is wrong, if anything.
    package func findFault() -> String? {
        var chargedCount = 0
        var loads = 0
        var bytes = 0
        for (slot, entry) in entries.all {
            guard slots[entry.id] == slot else { return "\(entry.name) is not where it is noted" }
            guard entry.blocks.allSatisfy({ pool.ledger.isCharged($0) }) else {
                return "\(entry.name) has blocks that are not charged"
            }
            chargedCount += entry.blocks.count
            var isEvictable = false
            if case .resident = entry.state {
                bytes += entry.byteCount
                isEvictable = !entry.isPlanned && leaseCount(entry.id) == 0
            } else {
                loads += 1
            }
            guard pool.policy.isOffered(slot: slot) == isEvictable else {
                return "\(entry.name) may be evicted, or may not"
            }
        }
        guard chargedCount == pool.adapterBlockCount, loads == loadCount, bytes == byteCount,
            slots.count == entries.count
        else {
            return "\(chargedCount) blocks of \(slots.count) adapters, \(loads) of them loading; "
                + "noted are \(pool.adapterBlockCount) blocks and \(loadCount) loads"
        }
        return nil
    }
}
