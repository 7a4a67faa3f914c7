/// Names a block of the pool.
package struct BlockID: Hashable, Sendable {
    package let index: Int32

    package init(index: Int32) { self.index = index }
    init(_ index: Int) { self.index = Int32(index) }

    var number: Int { Int(index) }
}

/// What each block of the pool is used for: accounting alone, without memory.
///
/// A block is free, charged to an adapter, or has keys and values. The last kind is held by any
/// number of sequences, and may be cached besides, which keeps it when nobody holds it.
///
/// - Complexity: O(log₆₄ blocks) per block.
struct BlockLedger {
    let blockCount: Int
    private var free: NumberSet
    private var isCharged: [Bool]
    private var isCached: [Bool]
    /// Sequences that hold the block.
    private var holderCounts: [Int32]
    /// Blocks with keys and values that somebody holds.
    private(set) var heldCount = 0
    /// Cached blocks that nobody holds.
    private(set) var idleCount = 0
    private(set) var chargedCount = 0

    init(blockCount: Int) {
        self.blockCount = blockCount
        free = NumberSet(bound: blockCount, isFull: true)
        isCharged = [Bool](repeating: false, count: blockCount)
        isCached = isCharged
        holderCounts = [Int32](repeating: 0, count: blockCount)
    }

    var freeCount: Int { free.count }

    func holderCount(_ block: BlockID) -> Int { Int(holderCounts[block.number]) }
    func isHeld(_ block: BlockID) -> Bool { holderCounts[block.number] > 0 }
    func isCached(_ block: BlockID) -> Bool { isCached[block.number] }
    func isCharged(_ block: BlockID) -> Bool { isCharged[block.number] }
    func isFree(_ block: BlockID) -> Bool { free.contains(block.number) }

    /// The lowest free block, held once from now on: low blocks are used again and again, so that
    /// high ones need no memory and can be charged to adapters.
    mutating func takeForKeysAndValues() -> BlockID? {
        guard let number = free.first else { return nil }
        free.remove(number)
        holderCounts[number] = 1
        heldCount += 1
        return BlockID(number)
    }

    /// One holder more, of a block that has keys and values.
    mutating func hold(_ block: BlockID) {
        let number = block.number
        precondition(holderCounts[number] > 0 || isCached[number], "a block without content")
        if holderCounts[number] == 0 {
            idleCount -= 1
            heldCount += 1
        }
        holderCounts[number] += 1
    }

    /// One holder less. The block is free again where that was the last and it is not cached.
    ///
    /// - Returns: whether nobody holds it any more.
    mutating func letGo(_ block: BlockID) -> Bool {
        let number = block.number
        precondition(holderCounts[number] > 0, "a block that nobody holds")
        holderCounts[number] -= 1
        guard holderCounts[number] == 0 else { return false }
        heldCount -= 1
        if isCached[number] { idleCount += 1 } else { free.insert(number) }
        return true
    }

    mutating func setCached(_ block: BlockID) {
        precondition(isHeld(block) && !isCached(block), "only held blocks enter the cache")
        isCached[block.number] = true
    }

    /// The block is free again unless somebody holds it.
    mutating func clearCached(_ block: BlockID) {
        let number = block.number
        precondition(isCached[number], "a block that is not cached")
        isCached[number] = false
        guard holderCounts[number] == 0 else { return }
        idleCount -= 1
        free.insert(number)
    }

    /// Charges the highest free blocks to an adapter.
    ///
    /// - Returns: them, from high to low; nil where too few are free.
    mutating func charge(_ count: Int) -> [BlockID]? {
        guard count <= free.count else { return nil }
        var blocks: [BlockID] = []
        blocks.reserveCapacity(count)
        while blocks.count < count, let number = free.last {
            free.remove(number)
            isCharged[number] = true
            blocks.append(BlockID(number))
        }
        chargedCount += count
        return blocks
    }

    mutating func discharge(_ blocks: [BlockID]) {
        for block in blocks {
            precondition(isCharged[block.number], "a block that is not charged")
            isCharged[block.number] = false
            free.insert(block.number)
        }
        chargedCount -= blocks.count
    }

    /// - Returns: what is wrong, if anything.
    func findFault() -> String? {
        var counts = (free: 0, held: 0, idle: 0, charged: 0)
        for number in 0..<blockCount {
            let isFree = free.contains(number)
            let hasContent = holderCounts[number] > 0 || isCached[number]
            let uses = (isFree ? 1 : 0) + (isCharged[number] ? 1 : 0) + (hasContent ? 1 : 0)
            guard uses == 1, holderCounts[number] >= 0 else {
                return "block \(number) has \(uses) uses and \(holderCounts[number]) holders"
            }
            counts.free += isFree ? 1 : 0
            counts.charged += isCharged[number] ? 1 : 0
            counts.held += holderCounts[number] > 0 ? 1 : 0
            counts.idle += hasContent && holderCounts[number] == 0 ? 1 : 0
        }
        guard counts == (free.count, heldCount, idleCount, chargedCount) else {
            return "counted \(counts), noted \((free.count, heldCount, idleCount, chargedCount))"
        }
        return nil
    }
}
