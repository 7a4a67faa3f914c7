import Foundation

/// Which idle adapters may be evicted. Each case includes the ones before it; cached blocks may
/// always be.
package enum EvictionReach: Int, Comparable, Sendable {
    /// Adapters that nobody waits for.
    case idle
    /// And those that waiting sequences want, the one that is wanted last first.
    case awaited
    /// And pinned ones.
    case pinned

    package static func < (a: EvictionReach, b: EvictionReach) -> Bool { a.rawValue < b.rawValue }
}

/// By what idle adapters and cached blocks are ordered for eviction.
package enum EvictionOrder: String, Sendable, CaseIterable {
    /// Use, size and the time to get them back.
    case gdsf
    /// When they fell idle alone: for comparison.
    case lru
}

/// What it takes to get back what was evicted, measured as the engine runs.
package struct RecoveryCosts: Sendable {
    /// Seconds to compute the keys and values of a token.
    private var perToken = 5e-4
    /// Seconds to load a byte of an adapter.
    private var perAdapterByte = 2e-9

    package init() {}

    /// Bytes of adapters that load while a token's keys and values are computed: a power of two, so
    /// that the order of candidates does not change with each measurement.
    package var adapterBytesPerToken: Double {
        exp2((log2(perToken) - log2(perAdapterByte)).rounded())
    }

    package mutating func noteComputation(tokenCount: Int, _ duration: Duration) {
        guard tokenCount > 0 else { return }
        perToken += (max(duration / .seconds(1), 1e-9) / Double(tokenCount) - perToken) / 16
    }

    package mutating func noteLoad(byteCount: Int, _ duration: Duration) {
        guard byteCount > 0 else { return }
        perAdapterByte +=
            (max(duration / .seconds(1), 1e-9) / Double(byteCount) - perAdapterByte) / 16
    }
}

/// The order in which idle adapters and cached blocks leave the pool: GreedyDual-Size with
/// frequency (Cao and Irani 1997, Cherkasova 1998).
///
/// A candidate's priority is `floor + uses · cost / bytes`, where the cost is the time to get it
/// back, in units of the time that an adapter's byte takes: that is 1 for every adapter. The least
/// goes first, and its priority is the floor from then on, so that what was not used since sinks
/// below what was. A block that was never found again counts as the share of such blocks
/// that were, lately: where prompts do not repeat, their blocks leave before anything else.
///
/// Adapters that waiting sequences want, and pinned ones, have queues of their own.
///
/// `EvictionOrder.lru` leaves the worth out, so that all have one priority and go in the order in
/// which they fell idle.
struct EvictionPolicy {
    enum Candidate: Equatable {
        case block(BlockID)
        case adapter(slot: Int)
    }

    /// Where an idle adapter stands.
    enum Standing: Equatable {
        case idle
        /// - Parameter since: grows with the time at which the first of those who wait came.
        case awaited(since: UInt64)
        case pinned
    }

    /// Uses beyond this count no more, so that old fame fades.
    private static let mostUses: UInt8 = 16
    /// Blocks that were never found again are never worth less than this share.
    private static let leastReuse = 1.0 / 64

    private struct Offer {
        var standing: Standing
        var blockCount: Int
    }

    private let blockCount: Int
    private let blockByteCount: Int
    private let order: EvictionOrder
    package var costs = RecoveryCosts()
    /// Cached leaves that nobody holds, and idle adapters: those come after all blocks' numbers.
    private var idle: EvictionQueue
    private var awaited = EvictionQueue(candidateCount: 0)
    private var pinned = EvictionQueue(candidateCount: 0)
    private var offers: [Offer?] = []
    private var adapterBlockCounts = [0, 0, 0]
    private var floor = 0.0
    private var stamp: UInt64 = 0
    /// By block: how often it was found again, and where it comes when it is offered.
    private var uses: [UInt8]
    private var ranks: [EvictionQueue.Rank]
    /// Of the blocks evicted lately, the share that had been found again.
    private(set) var reuse = 0.5

    init(blockCount: Int, blockByteCount: Int, order: EvictionOrder) {
        self.blockCount = blockCount
        self.blockByteCount = blockByteCount
        self.order = order
        idle = EvictionQueue(candidateCount: blockCount)
        uses = [UInt8](repeating: 0, count: blockCount)
        ranks = [EvictionQueue.Rank](
            repeating: .init(priority: 0, stamp: 0), count: blockCount)
    }

    private mutating func rank(_ worth: Double) -> EvictionQueue.Rank {
        stamp += 1
        return .init(priority: order == .lru ? 0 : floor + worth, stamp: stamp)
    }

    // MARK: - Blocks

    /// A block begins to be cached.
    mutating func begin(_ block: BlockID) { uses[block.number] = 0 }

    /// A block was found by a sequence.
    mutating func noteUse(_ block: BlockID) {
        uses[block.number] = min(uses[block.number] + 1, Self.mostUses)
    }

    /// Fixes a block's rank, now that nobody holds it any more.
    mutating func note(_ block: BlockID, tokenCount: Int) {
        let number = block.number
        let weight = uses[number] == 0 ? max(reuse, Self.leastReuse) : Double(uses[number])
        ranks[number] = rank(
            weight * Double(tokenCount) * costs.adapterBytesPerToken / Double(blockByteCount))
    }

    mutating func offer(_ block: BlockID) { idle.insert(block.number, ranks[block.number]) }
    mutating func withdraw(_ block: BlockID) { idle.remove(block.number) }
    func isOffered(_ block: BlockID) -> Bool { idle.contains(block.number) }

    mutating func willEvict(_ block: BlockID) {
        floor = max(floor, ranks[block.number].priority)
        reuse += ((uses[block.number] > 0 ? 1 : 0) - reuse) / 64
    }

    // MARK: - Adapters

    /// What keeping an adapter that was used this often is worth, for `next(below:)`.
    func worth(uses: Int) -> Double {
        Double(min(max(uses, 1), Int(Self.mostUses)))
    }

    /// The bound for evictions that bring in something of that worth.
    func bound(_ worth: Double) -> Double { floor + worth }

    /// Puts an idle adapter where it belongs, or moves it there.
    mutating func offer(slot: Int, _ standing: Standing, blockCount count: Int, uses: Int) {
        withdraw(slot: slot)
        while offers.count <= slot { offers.append(nil) }
        offers[slot] = Offer(standing: standing, blockCount: count)
        let queueRank = rank(worth(uses: uses))
        switch standing {
        case .idle: idle.insert(blockCount + slot, queueRank)
        case .awaited(let since):
            awaited.insert(slot, .init(priority: -Double(since), stamp: queueRank.stamp))
        case .pinned: pinned.insert(slot, queueRank)
        }
        adapterBlockCounts[Self.reach(standing).rawValue] += count
    }

    mutating func withdraw(slot: Int) {
        guard slot < offers.count, let offer = offers[slot] else { return }
        offers[slot] = nil
        switch offer.standing {
        case .idle: idle.remove(blockCount + slot)
        case .awaited: awaited.remove(slot)
        case .pinned: pinned.remove(slot)
        }
        adapterBlockCounts[Self.reach(offer.standing).rawValue] -= offer.blockCount
    }

    func isOffered(slot: Int) -> Bool { standing(slot: slot) != nil }

    /// Nil where the adapter may not be evicted.
    func standing(slot: Int) -> Standing? { slot < offers.count ? offers[slot]?.standing : nil }

    private static func reach(_ standing: Standing) -> EvictionReach {
        switch standing {
        case .idle: .idle
        case .awaited: .awaited
        case .pinned: .pinned
        }
    }

    /// Blocks of the adapters that may be evicted.
    func adapterBlockCount(_ reach: EvictionReach) -> Int {
        adapterBlockCounts[0...reach.rawValue].reduce(0, +)
    }

    // MARK: -

    /// What is to be evicted next, and is still a candidate until it is withdrawn.
    mutating func next(_ reach: EvictionReach, below bound: Double) -> Candidate? {
        if let (candidate, rank) = idle.first {
            guard rank.priority <= bound else { return nil }
            guard candidate >= blockCount else { return .block(BlockID(candidate)) }
            floor = max(floor, rank.priority)
            return .adapter(slot: candidate - blockCount)
        }
        if reach >= .awaited, let (slot, _) = awaited.first { return .adapter(slot: slot) }
        if reach >= .pinned, let (slot, _) = pinned.first { return .adapter(slot: slot) }
        return nil
    }

    /// - Returns: what is wrong, if anything.
    func findFault() -> String? {
        if let fault = idle.findFault() ?? awaited.findFault() ?? pinned.findFault() {
            return fault
        }
        var counts = [0, 0, 0]
        var queued = (idle: 0, awaited: 0, pinned: 0)
        for (slot, offer) in offers.enumerated() {
            guard let offer else { continue }
            counts[Self.reach(offer.standing).rawValue] += offer.blockCount
            switch offer.standing {
            case .idle: queued.idle += idle.contains(blockCount + slot) ? 1 : 0
            case .awaited: queued.awaited += awaited.contains(slot) ? 1 : 0
            case .pinned: queued.pinned += pinned.contains(slot) ? 1 : 0
            }
        }
        let offered = offers.reduce(0) { $0 + ($1 == nil ? 0 : 1) }
        guard counts == adapterBlockCounts,
            queued.idle + awaited.count + pinned.count == offered,
            queued.awaited == awaited.count, queued.pinned == pinned.count
        else { return "\(offered) adapters may be evicted, queued are \(queued)" }
        return nil
    }
}
