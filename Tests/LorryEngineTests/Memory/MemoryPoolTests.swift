import Foundation
import LorryEngine
import Testing

@Suite struct MemoryPoolTests {
    private func makePool(_ blockCount: Int, blockByteCount: Int = 4096) throws -> MemoryPool {
        try MemoryPool(
            budgetByteCount: blockCount * blockByteCount + blockByteCount - 1,
            blockByteCount: blockByteCount)
    }

    @Test func holdsAsManyBlocksAsTheBudget() throws {
        let pool = try makePool(5)
        #expect(pool.blockCount == 5)
        #expect(pool.freeCount == 5)
        #expect(pool.blocks(forByteCount: 0) == 0)
        #expect(pool.blocks(forByteCount: 1) == 1)
        #expect(pool.blocks(forByteCount: 4096) == 1)
        #expect(pool.blocks(forByteCount: 4097) == 2)
        #expect(throws: PoolError.self) {
            try MemoryPool(budgetByteCount: 4095, blockByteCount: 4096)
        }
    }

    /// Every sequence of five operations on a pool of three blocks.
    @Test func keepsCountInEverySmallHistory() throws {
        let operations = 5
        for history in 0..<1024 {
            let pool = try makePool(3)
            var blocks: [BlockID] = []
            var adapters: [[BlockID]] = []
            var rest = history
            for _ in 0..<operations {
                switch rest % 4 {
                case 0: if let block = pool.allocateKVBlock() { blocks.append(block) }
                case 1: if !blocks.isEmpty { pool.letGo(blocks.removeFirst()) }
                case 2:
                    if let taken = pool.reserveForAdapter(byteCount: 5000) {
                        adapters.append(taken)
                    }
                default: if !adapters.isEmpty { pool.releaseFromAdapter(adapters.removeFirst()) }
                }
                rest /= 4
                check(pool, blocks, adapters)
            }
        }
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func keepsCountInLongRandomRuns(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        // Blocks that are no multiple of a page, so that their edges share pages.
        let pool = try makePool(40, blockByteCount: 6000)
        var blocks: [BlockID: UInt8] = [:]
        var adapters: [[BlockID]] = []
        for step in 0..<20_000 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                guard let block = pool.allocateKVBlock() else { break }
                #expect(blocks[block] == nil)
                let mark = UInt8(truncatingIfNeeded: step)
                try bytes(of: block, pool)
                    .initializeMemory(as: UInt8.self, repeating: mark, count: pool.blockByteCount)
                blocks[block] = mark
            case 1:
                guard let (block, _) = blocks.randomElement(using: &random) else { break }
                blocks[block] = nil
                pool.letGo(block)
            case 2:
                let size = Int.random(in: 0..<60_000, using: &random)
                let fits = pool.blocks(forByteCount: size) <= pool.freeCount
                let taken = pool.reserveForAdapter(byteCount: size)
                #expect((taken != nil) == fits)
                if let taken { adapters.append(taken) }
            default:
                guard !adapters.isEmpty else { break }
                let index = Int.random(in: 0..<adapters.count, using: &random)
                pool.releaseFromAdapter(adapters.remove(at: index))
            }
            check(pool, Array(blocks.keys), adapters)
        }
        // Giving memory back to the system must never touch a block in use.
        for (block, mark) in blocks {
            let bytes = UnsafeRawBufferPointer(
                start: try bytes(of: block, pool), count: pool.blockByteCount)
            #expect(bytes.allSatisfy { $0 == mark }, "seed \(seed)")
        }
    }

    /// Huge pages must bring no memory behind blocks that are charged to adapters.
    @Test(arguments: [4, 5] as [UInt64])
    func memoryStaysWithinTheBudget(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        // Blocks that straddle huge pages, and some pages' edges.
        let pool = try makePool(60, blockByteCount: 368_640 + 512)
        let pageByteCount = Int(sysconf(Int32(_SC_PAGESIZE)))
        var blocks: [BlockID: UInt8] = [:]
        var adapters: [[BlockID]] = []
        for step in 0..<600 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0, 1:
                guard let block = pool.allocateKVBlock() else { break }
                let mark = UInt8(step % 251 + 1)
                try bytes(of: block, pool)
                    .initializeMemory(as: UInt8.self, repeating: mark, count: pool.blockByteCount)
                blocks[block] = mark
            case 2:
                let size = Int.random(in: 0..<5_000_000, using: &random)
                if let taken = pool.reserveForAdapter(byteCount: size) { adapters.append(taken) }
            default:
                if Bool.random(using: &random), !adapters.isEmpty {
                    let index = Int.random(in: 0..<adapters.count, using: &random)
                    pool.releaseFromAdapter(adapters.remove(at: index))
                } else {
                    let leaving = blocks.keys.filter { _ in Bool.random(using: &random) }
                    for block in leaving { blocks[block] = nil }
                    for block in leaving { pool.letGo(block) }
                }
            }
            let bound =
                (pool.blockCount - pool.adapterBlockCount) * pool.blockByteCount
                + 2 * pool.adapterBlockCount * pageByteCount
            #expect(try residentByteCount(pool) <= bound, "seed \(seed), step \(step)")
        }
        for (block, mark) in blocks {
            let bytes = UnsafeRawBufferPointer(
                start: try bytes(of: block, pool), count: pool.blockByteCount)
            #expect(bytes.allSatisfy { $0 == mark }, "seed \(seed)")
        }
    }

    private func bytes(of block: BlockID, _ pool: MemoryPool) throws -> UnsafeMutableRawPointer {
        try #require(pool.arena) + Int(block.index) * pool.blockByteCount
    }

    private func residentByteCount(_ pool: MemoryPool) throws -> Int {
        let pageByteCount = Int(sysconf(Int32(_SC_PAGESIZE)))
        let byteCount = pool.blockCount * pool.blockByteCount
        var pages = [UInt8](repeating: 0, count: (byteCount + pageByteCount - 1) / pageByteCount)
        let arena = try #require(pool.arena)
        #expect(mincore(arena, byteCount, &pages) == 0)
        return pages.reduce(0) { $0 + Int($1 & 1) } * pageByteCount
    }

    private func check(_ pool: MemoryPool, _ blocks: [BlockID], _ adapters: [[BlockID]]) {
        pool.checkInvariants()
        let used = blocks + adapters.joined()
        let isRight =
            pool.kvBlockCount == blocks.count
            && pool.adapterBlockCount == adapters.reduce(0) { $0 + $1.count }
            && pool.freeCount == pool.blockCount - used.count && Set(used).count == used.count
        #expect(isRight)
    }
}
