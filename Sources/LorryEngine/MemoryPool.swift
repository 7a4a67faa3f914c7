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
/// The first write of a block asks for the huge pages that it lies in, unless one of their blocks is
/// charged to an adapter: such a page would bring memory back behind a block that is charged for
/// memory elsewhere. When a block is charged, its huge pages are small ones again from then on.
///
/// Owned by the engine thread.
package final class MemoryPool {
    package let blockByteCount: Int
    package let blockCount: Int
    /// Block `i` starts at byte `i · blockByteCount`.
    package let arena: UnsafeMutableRawPointer
    private var free: [BlockID]
    /// Blocks that may have memory: written, or in a huge page with one that is.
    private var isTouched: [Bool]
    private var isCharged: [Bool]
    /// By huge page of the arena: whether the system may give it as one.
    private var isHuge: [Bool]
    private let mapping: UnsafeMutableRawBufferPointer
    private static let hugePageByteCount = 2 << 20
    private static let pageByteCount = Int(sysconf(Int32(_SC_PAGESIZE)))
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
        let byteCount = blockCount * blockByteCount + Self.hugePageByteCount
        guard
            let address = mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, -1, 0),
            address != MAP_FAILED
        else { throw PoolError("no address space for \(byteCount) bytes") }
        mapping = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
        arena = address.alignedUp(toMultipleOf: Self.hugePageByteCount)
        #if os(Linux)
            // Where the system gives huge pages unasked, one could reach into a charged block.
            madvise(address, byteCount, MADV_NOHUGEPAGE)
        #endif
        isTouched = [Bool](repeating: false, count: blockCount)
        isCharged = isTouched
        // Only pages that lie in the arena as a whole.
        isHuge = [Bool](
            repeating: false, count: blockCount * blockByteCount / Self.hugePageByteCount)
        // Low blocks are handed out first, and used again first, so that untouched ones stay so.
        free = (0..<blockCount).reversed().map { BlockID(index: Int32($0)) }
    }

    deinit { munmap(mapping.baseAddress, mapping.count) }

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
        askForHugePages(of: Int(block.index))
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
        for block in taken {
            isCharged[Int(block.index)] = true
            refuseHugePages(of: Int(block.index))
            if isTouched[Int(block.index)] { giveBack(block) }
        }
        usedByAdapters += count
        return taken
    }

    package func releaseFromAdapter(_ blocks: [BlockID]) {
        for block in blocks { isCharged[Int(block.index)] = false }
        free.insert(contentsOf: blocks, at: 0)
        usedByAdapters -= blocks.count
        precondition(usedByAdapters >= 0)
    }

    // MARK: - Huge pages

    /// The huge pages that a block lies in, as far as they lie in the arena.
    private func hugePages(of block: Int) -> Range<Int> {
        let first = block * blockByteCount / Self.hugePageByteCount
        let last = ((block + 1) * blockByteCount - 1) / Self.hugePageByteCount
        return min(first, isHuge.count)..<min(last + 1, isHuge.count)
    }

    private func askForHugePages(of block: Int) {
        #if os(Linux)
            for page in hugePages(of: block) where !isHuge[page] {
                let first = page * Self.hugePageByteCount / blockByteCount
                let last = ((page + 1) * Self.hugePageByteCount - 1) / blockByteCount
                guard !isCharged[first...last].contains(true) else { continue }
                // Advice only: without huge pages everything works, more slowly.
                advise(page, MADV_HUGEPAGE)
                isHuge[page] = true
                for neighbour in first...last { isTouched[neighbour] = true }
            }
        #endif
    }

    private func refuseHugePages(of block: Int) {
        #if os(Linux)
            for page in hugePages(of: block) where isHuge[page] {
                advise(page, MADV_NOHUGEPAGE)
                isHuge[page] = false
            }
        #endif
    }

    private func advise(_ hugePage: Int, _ advice: Int32) {
        madvise(arena + hugePage * Self.hugePageByteCount, Self.hugePageByteCount, advice)
    }

    /// Only whole pages can be given back; the rest of a block's edge pages stays charged to it.
    private func giveBack(_ block: BlockID) {
        let pageByteCount = Self.pageByteCount
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
