import Foundation
import LorryTensor

/// Names a KV block in the pool.
package struct BlockID: Hashable, Sendable {
    package let index: Int32

    package init(index: Int32) { self.index = index }
}

/// One budget of memory for KV blocks and resident adapters.
///
/// The arena is one virtual range of as many KV blocks as the budget holds; pages get memory when
/// they are first written. An adapter is charged in whole blocks: those blocks are taken out of use
/// and the memory behind them is given back to the system, so that the process never uses more than
/// the budget, adapters of mixed sizes cause no fragmentation, and an adapter stays contiguous.
///
/// Owned by the engine thread.
package final class MemoryPool {
    package let blockByteCount: Int
    package let blockCount: Int
    /// Block `i` starts at byte `i · blockByteCount`.
    package let arena: UnsafeMutableRawPointer
    private var free: [BlockID]
    /// Blocks written since their memory was last given back.
    private var isTouched: [Bool]
    private var usedByKV = 0
    private var usedByAdapters = 0

    /// - Throws: `PoolError` where the system does not give the address space.
    package init(budgetByteCount: Int, blockByteCount: Int) throws(PoolError) {
        precondition(blockByteCount > 0)
        self.blockByteCount = blockByteCount
        blockCount = min(budgetByteCount / blockByteCount, Int(Int32.max))
        guard blockCount > 0 else {
            throw PoolError(
                "a memory budget of \(budgetByteCount) bytes holds no KV block of \(blockByteCount)"
            )
        }
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard
            let address = mmap(
                nil, blockCount * blockByteCount, PROT_READ | PROT_WRITE, flags, -1, 0),
            address != MAP_FAILED
        else { throw PoolError("no address space for \(blockCount * blockByteCount) bytes") }
        arena = address
        isTouched = [Bool](repeating: false, count: blockCount)
        // Low blocks are handed out first, and used again first, so that untouched ones stay so.
        free = (0..<blockCount).reversed().map { BlockID(index: Int32($0)) }
    }

    deinit { munmap(arena, blockCount * blockByteCount) }

    package var freeCount: Int { free.count }
    package var kvBlockCount: Int { usedByKV }
    package var adapterBlockCount: Int { usedByAdapters }

    /// Blocks that an operand of this size is charged.
    package func blocks(forByteCount byteCount: Int) -> Int {
        (byteCount + blockByteCount - 1) / blockByteCount
    }

    /// - Returns: nil where no block is free.
    package func allocateKVBlock() -> BlockID? {
        guard let block = free.popLast() else { return nil }
        isTouched[Int(block.index)] = true
        usedByKV += 1
        return block
    }

    package func freeKVBlocks(_ blocks: [BlockID]) {
        free.append(contentsOf: blocks.reversed())
        usedByKV -= blocks.count
        precondition(usedByKV >= 0)
    }

    /// Takes blocks out of use for an adapter and gives their memory back to the system.
    ///
    /// - Returns: nil where too few are free.
    package func reserveForAdapter(byteCount: Int) -> [BlockID]? {
        let count = blocks(forByteCount: byteCount)
        guard count <= free.count else { return nil }
        // From the cold end: blocks that were never written cost nothing to take.
        let taken = Array(free.prefix(count))
        free.removeFirst(count)
        for block in taken where isTouched[Int(block.index)] { giveBack(block) }
        usedByAdapters += count
        return taken
    }

    package func releaseFromAdapter(_ blocks: [BlockID]) {
        free.insert(contentsOf: blocks, at: 0)
        usedByAdapters -= blocks.count
        precondition(usedByAdapters >= 0)
    }

    /// Only whole pages can be given back; the rest of a block's edge pages stays charged to it.
    private func giveBack(_ block: BlockID) {
        let pageByteCount = Int(sysconf(Int32(_SC_PAGESIZE)))
        let start = Int(block.index) * blockByteCount
        let firstPage = (start + pageByteCount - 1) / pageByteCount * pageByteCount
        let lastPage = (start + blockByteCount) / pageByteCount * pageByteCount
        if lastPage > firstPage {
            madvise(arena + firstPage, lastPage - firstPage, MADV_DONTNEED)
        }
        isTouched[Int(block.index)] = false
    }

    /// Checks that every block is free or used exactly once. For tests and after drains.
    package func checkInvariants() {
        precondition(free.count + usedByKV + usedByAdapters == blockCount)
        precondition(Set(free).count == free.count)
    }
}

package struct PoolError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
