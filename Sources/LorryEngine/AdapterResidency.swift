import LorryModel

/// Which adapters are in memory, and the loads under way. Owned by the engine thread.
///
/// An adapter is charged to the pool before it is loaded. Idle ones are evicted, least recently used
/// first, when the pool needs room; pinned ones only when nothing could run otherwise.
final class AdapterResidency {
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
    private let loader: AdapterLoader
    private var entries: [AdapterVersionID: Entry] = [:]
    private var pinned: Set<AdapterVersionID> = []
    /// Deleted or replaced versions: evicted as soon as nothing uses them.
    private var forgotten: Set<AdapterVersionID> = []
    /// Sizes of versions that turned out larger than their references say: those were measured at
    /// registration, which may have been under other weights.
    private var measuredByteCounts: [AdapterVersionID: Int] = [:]
    private var useCounter: UInt64 = 0
    /// Uses after this belong to the plan being made; their adapters are not evicted for others.
    private var planStart: UInt64 = 0
    var onEvict: (String) -> Void = { _ in }

    init(pool: MemoryPool, loader: AdapterLoader) {
        self.pool = pool
        self.loader = loader
    }

    func beginPlan() { planStart = useCounter }

    func program(_ id: AdapterVersionID) -> AdapterProgram? {
        guard case .resident(let program)? = entries[id]?.state else { return nil }
        return program
    }

    var hasLoads: Bool {
        entries.values.contains { if case .loading = $0.state { true } else { false } }
    }

    /// Whether the adapter is resident. Starts its load where it is absent and room can be made.
    func prepare(
        _ reference: AdapterReference, isInUse: (AdapterVersionID) -> Bool,
        now: ContinuousClock.Instant
    ) -> Bool {
        useCounter += 1
        if let entry = entries[reference.id] {
            entries[reference.id]?.lastUse = useCounter
            if case .resident = entry.state { return true }
            return false
        }
        let byteCount = byteCount(of: reference)
        let needed = pool.blocks(forByteCount: byteCount)
        while pool.freeCount < needed {
            guard evictOne(isInUse: isInUse, includingPinned: false) else { return false }
        }
        guard let blocks = pool.reserveForAdapter(byteCount: byteCount) else {
            return false
        }
        entries[reference.id] = Entry(
            name: reference.name, blocks: blocks, byteCount: byteCount,
            state: .loading(since: now), lastUse: useCounter)
        loader.load(reference)
        return false
    }

    /// What the pool is charged for an adapter.
    func byteCount(of reference: AdapterReference) -> Int {
        max(reference.byteCount, measuredByteCounts[reference.id] ?? 0)
    }

    /// Takes in a loaded adapter; nil frees what was reserved for it. One that is larger than
    /// expected and finds no room is dropped, to be loaded again when there is.
    ///
    /// - Returns: how long the load took.
    func finishLoad(
        _ id: AdapterVersionID, _ program: AdapterProgram?, now: ContinuousClock.Instant
    ) -> Duration {
        guard var entry = entries[id], case .loading(let since) = entry.state else { return .zero }
        if let program, fit(&entry, program, id) {
            entry.state = .resident(program)
            entries[id] = entry
        } else {
            entries[id] = nil
            pool.releaseFromAdapter(entry.blocks)
        }
        return now - since
    }

    private func fit(
        _ entry: inout Entry, _ program: AdapterProgram, _ id: AdapterVersionID
    ) -> Bool {
        guard program.byteCount > entry.byteCount else { return true }
        measuredByteCounts[id] = program.byteCount
        let missing = pool.blocks(forByteCount: program.byteCount) - entry.blocks.count
        guard let more = pool.reserveForAdapter(byteCount: missing * pool.blockByteCount) else {
            return false
        }
        entry.blocks += more
        entry.byteCount = program.byteCount
        return true
    }

    func setPinned(_ id: AdapterVersionID, _ isPinned: Bool) {
        if isPinned { pinned.insert(id) } else { pinned.remove(id) }
    }

    func forget(_ id: AdapterVersionID) {
        pinned.remove(id)
        forgotten.insert(id)
    }

    func evictForgotten(isInUse: (AdapterVersionID) -> Bool) {
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
    func evictOne(isInUse: (AdapterVersionID) -> Bool, includingPinned: Bool) -> Bool {
        let idle = entries.filter { id, entry in
            guard case .resident = entry.state, entry.lastUse <= planStart else { return false }
            return !isInUse(id) && (includingPinned || !pinned.contains(id))
        }
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

    func residents(leaseCount: (AdapterVersionID) -> Int) -> [EngineStatistics.ResidentAdapter] {
        entries.compactMap { id, entry in
            guard case .resident = entry.state else { return nil }
            return .init(
                id: id, name: entry.name, byteCount: entry.byteCount, leaseCount: leaseCount(id),
                isPinned: pinned.contains(id))
        }
        .sorted { ($0.name, $0.id.digest) < ($1.name, $1.id.digest) }
    }
}
