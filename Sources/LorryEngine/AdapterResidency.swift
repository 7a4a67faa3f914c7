import LorryModel

/// Which adapters are in memory, and the loads under way. Owned by the engine thread.
///
/// An adapter is charged to the pool before it is loaded. Idle ones are evicted, least recently used
/// first, when the pool needs room; pinned ones only when nothing could run otherwise.
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
        case resident(AdapterProgram)
    }

    private struct Entry {
        let name: String
        var blocks: [BlockID]
        var byteCount: Int
        var state: State
        var lastUse: UInt64
    }

    private let pool: MemoryPool
    private let startLoad: (AdapterReference) -> Void
    private var entries: [AdapterVersionID: Entry] = [:]
    private var pinned: Set<AdapterVersionID> = []
    /// Deleted or replaced versions: evicted as soon as nothing uses them.
    private var forgotten: Set<AdapterVersionID> = []
    private var useCounter: UInt64 = 0
    /// Uses after this belong to the plan being made; their adapters are not evicted for others.
    private var planStart: UInt64 = 0
    package var onEvict: (String) -> Void = { _ in }

    /// - Parameter startLoad: returns at once; `finishLoad` is to be called when the load has ended.
    package init(pool: MemoryPool, startLoad: @escaping (AdapterReference) -> Void) {
        self.pool = pool
        self.startLoad = startLoad
    }

    package func beginPlan() { planStart = useCounter }

    package func program(_ id: AdapterVersionID) -> AdapterProgram? {
        guard case .resident(let program)? = entries[id]?.state else { return nil }
        return program
    }

    package var hasLoads: Bool {
        entries.values.contains { if case .loading = $0.state { true } else { false } }
    }

    /// Says whether the adapter is resident. Starts its load where it is absent and room can be
    /// made; evicts nothing where that would not suffice.
    ///
    /// - Parameter spareBlockCount: blocks that must be free beside the adapter, so that what it is
    ///   loaded for can run without evicting it, or others, again.
    package func prepare(
        _ reference: AdapterReference, sparing spareBlockCount: Int, includingPinned: Bool = false,
        isInUse: (AdapterVersionID) -> Bool, now: ContinuousClock.Instant
    ) -> Readiness {
        useCounter += 1
        if let entry = entries[reference.id] {
            entries[reference.id]?.lastUse = useCounter
            if case .resident = entry.state { return .ready }
            return .loading
        }
        let needed = pool.blocks(forByteCount: reference.byteCount) + spareBlockCount
        if pool.freeCount < needed {
            let idle = entries.filter { isIdle($0.key, $0.value, isInUse, includingPinned) }
            let idleBlockCount = idle.values.reduce(0) { $0 + $1.blocks.count }
            guard pool.freeCount + idleBlockCount >= needed else { return .lacksRoom }
        }
        while pool.freeCount < needed,
            evictOne(isInUse: isInUse, includingPinned: includingPinned)
        {}
        guard let blocks = pool.reserveForAdapter(byteCount: reference.byteCount) else {
            return .lacksRoom
        }
        entries[reference.id] = Entry(
            name: reference.name, blocks: blocks, byteCount: reference.byteCount,
            state: .loading(since: now), lastUse: useCounter)
        startLoad(reference)
        return .loading
    }

    private func isIdle(
        _ id: AdapterVersionID, _ entry: Entry, _ isInUse: (AdapterVersionID) -> Bool,
        _ includingPinned: Bool
    ) -> Bool {
        guard case .resident = entry.state, entry.lastUse <= planStart else { return false }
        return !isInUse(id) && (includingPinned || !pinned.contains(id))
    }

    /// - Returns: how long the load took.
    package func finishLoad(
        _ id: AdapterVersionID, _ program: AdapterProgram?, now: ContinuousClock.Instant
    ) -> Duration {
        guard let entry = entries[id], case .loading(let since) = entry.state else { return .zero }
        if let program {
            entries[id]?.state = .resident(program)
        } else {
            entries[id] = nil
            pool.releaseFromAdapter(entry.blocks)
        }
        return now - since
    }

    /// Charges a loaded program for what it really takes, where that is more than was announced:
    /// its size may have been noted when weights were held in another format.
    ///
    /// - Returns: false where there is no room; `finishLoad` is then to be told of a failure.
    package func chargeFully(
        _ id: AdapterVersionID, _ program: AdapterProgram, isInUse: (AdapterVersionID) -> Bool
    ) -> Bool {
        guard let entry = entries[id] else { return true }
        let missing = pool.blocks(forByteCount: program.byteCount) - entry.blocks.count
        guard missing > 0 else { return true }
        while pool.freeCount < missing, evictOne(isInUse: isInUse, includingPinned: false) {}
        guard let more = pool.reserveForAdapter(byteCount: missing * pool.blockByteCount) else {
            return false
        }
        entries[id]?.blocks += more
        entries[id]?.byteCount = program.byteCount
        return true
    }

    package func setPinned(_ id: AdapterVersionID, _ isPinned: Bool) {
        guard isPinned else {
            pinned.remove(id)
            return
        }
        pinned.insert(id)
        // The same content may be back after a delete that is still waiting to take effect.
        forgotten.remove(id)
    }

    package func forget(_ id: AdapterVersionID) {
        pinned.remove(id)
        forgotten.insert(id)
    }

    package func evictForgotten(isInUse: (AdapterVersionID) -> Bool) {
        for id in forgotten {
            guard let entry = entries[id] else {
                forgotten.remove(id)
                continue
            }
            guard case .resident = entry.state, !isInUse(id) else { continue }
            evict(id)
            forgotten.remove(id)
        }
    }

    /// Evicts the least recently used adapter that is resident and idle.
    ///
    /// - Returns: false where there is none.
    package func evictOne(isInUse: (AdapterVersionID) -> Bool, includingPinned: Bool) -> Bool {
        let idle = entries.filter { isIdle($0.key, $0.value, isInUse, includingPinned) }
        let first = idle.min { a, b in
            let (x, y) = (pinned.contains(a.key), pinned.contains(b.key))
            return x == y ? a.value.lastUse < b.value.lastUse : !x
        }
        guard let first else { return false }
        evict(first.key)
        return true
    }

    private func evict(_ id: AdapterVersionID) {
        guard let entry = entries.removeValue(forKey: id) else { return }
        pool.releaseFromAdapter(entry.blocks)
        onEvict(entry.name)
    }

    package func residents(leaseCount: (AdapterVersionID) -> Int) -> [EngineStatistics
        .ResidentAdapter]
    {
        entries.compactMap { id, entry in
            guard case .resident = entry.state else { return nil }
            return .init(
                id: id, name: entry.name, byteCount: entry.byteCount, leaseCount: leaseCount(id),
                isPinned: pinned.contains(id))
        }
        .sorted { ($0.name, $0.id.digest) < ($1.name, $1.id.digest) }
    }
}
