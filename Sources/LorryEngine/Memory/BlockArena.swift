import Foundation

/// The memory behind the pool's blocks: one virtual range whose pages get memory when they are first
/// written, and lose it when their block is charged to an adapter, whose operands lie elsewhere.
///
/// The first write of a block asks for the huge pages that it lies in, unless one of their blocks is
/// charged to an adapter: such a page would bring memory back behind a block that is charged for
/// memory elsewhere. When a block is charged, its huge pages are small ones again from then on.
final class BlockArena {
    let blockByteCount: Int
    /// Block `i` starts at byte `i · blockByteCount`.
    let start: UnsafeMutableRawPointer
    /// Blocks that may have memory: written, or in a huge page with one that is.
    private var isTouched: [Bool]
    private var isCharged: [Bool]
    /// By huge page that lies in the range as a whole: whether the system may give it as one.
    private var isHuge: [Bool]
    private let mapping: UnsafeMutableRawBufferPointer
    private static let hugePageByteCount = 2 << 20
    private static let pageByteCount = Int(sysconf(Int32(_SC_PAGESIZE)))

    /// - Throws: `PoolError` where the system does not give the address space.
    init(blockCount: Int, blockByteCount: Int) throws(PoolError) {
        self.blockByteCount = blockByteCount
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let byteCount = blockCount * blockByteCount + Self.hugePageByteCount
        guard
            let address = mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, -1, 0),
            address != MAP_FAILED
        else { throw PoolError("no address space for \(byteCount) bytes") }
        mapping = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
        start = address.alignedUp(toMultipleOf: Self.hugePageByteCount)
        #if os(Linux)
            // Where the system gives huge pages unasked, one could reach into a charged block.
            madvise(address, byteCount, MADV_NOHUGEPAGE)
        #endif
        isTouched = [Bool](repeating: false, count: blockCount)
        isCharged = isTouched
        isHuge = [Bool](
            repeating: false, count: blockCount * blockByteCount / Self.hugePageByteCount)
    }

    deinit { munmap(mapping.baseAddress, mapping.count) }

    /// Called before keys and values are written into a block.
    func willWrite(_ block: BlockID) {
        isTouched[block.number] = true
        askForHugePages(of: block.number)
    }

    func copy(_ source: BlockID, to target: BlockID) {
        (start + target.number * blockByteCount).copyMemory(
            from: start + source.number * blockByteCount, byteCount: blockByteCount)
    }

    /// Gives the memory of blocks back to the system.
    ///
    /// - Parameter blocks: from high to low.
    func charge(_ blocks: [BlockID]) {
        var run: Range<Int>?
        for block in blocks {
            let number = block.number
            isCharged[number] = true
            refuseHugePages(of: number)
            guard isTouched[number] else { continue }
            isTouched[number] = false
            if let known = run, known.lowerBound == number + 1 {
                run = number..<known.upperBound
            } else {
                if let run { giveBack(run) }
                run = number..<number + 1
            }
        }
        if let run { giveBack(run) }
    }

    func discharge(_ blocks: [BlockID]) {
        for block in blocks { isCharged[block.number] = false }
    }

    // MARK: -

    /// The huge pages that a block lies in, as far as they lie in the range.
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
        madvise(start + hugePage * Self.hugePageByteCount, Self.hugePageByteCount, advice)
    }

    /// Only whole pages can be given back; the rest of the edge pages stays.
    private func giveBack(_ blocks: Range<Int>) {
        let pageByteCount = Self.pageByteCount
        let firstByte = blocks.lowerBound * blockByteCount
        let firstPage = (firstByte + pageByteCount - 1) / pageByteCount * pageByteCount
        let lastPage = blocks.upperBound * blockByteCount / pageByteCount * pageByteCount
        if lastPage > firstPage {
            madvise(start + firstPage, lastPage - firstPage, MADV_DONTNEED)
        }
    }
}

package struct PoolError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
