import LorryTensor
import Testing

@Suite struct PageMemoryTests {
    @Test(arguments: [1, 4096, 100_000, 2 << 20, (5 << 20) + 1])
    func allBytesCanBeWritten(byteCount: Int) throws {
        let memory = try PageMemory(byteCount: byteCount)
        #expect(memory.byteCount == byteCount)
        #expect(Int(bitPattern: memory.start) % 4096 == 0)
        let bytes = UnsafeMutableRawBufferPointer(start: memory.start, count: byteCount)
        #expect(bytes.allSatisfy { $0 == 0 })
        for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: index) }
        #expect(bytes[byteCount - 1] == UInt8(truncatingIfNeeded: byteCount - 1))
    }

    @Test func whatTheSystemRefusesIsAnError() {
        let error = #expect(throws: MemoryRefusal.self) {
            _ = try PageMemory(byteCount: 1 << 60)
        }
        #expect(error?.byteCount == 1 << 60)
    }

    @Test func sparesServeTheSameSizeAgain() throws {
        let spares = SparePages(limit: 1 << 20)
        var first: PageMemory? = try PageMemory(byteCount: 200_000, spares: spares)
        let address = first?.start
        first?.start.storeBytes(of: 42, as: UInt8.self)
        #expect(spares.byteCount == 0)
        first = nil
        #expect(spares.byteCount == 200_000)
        let other = try PageMemory(byteCount: 200_001, spares: spares)
        #expect(other.start != address && spares.byteCount == 200_000)
        let again = try PageMemory(byteCount: 200_000, spares: spares)
        #expect(again.start == address && spares.byteCount == 0)
        #expect(again.start.load(as: UInt8.self) == 42)
    }

    @Test func sparesKeepToTheirLimit() throws {
        let spares = SparePages(limit: 300_000)
        var pieces = try (0..<5).map {
            try PageMemory(byteCount: 100_000 + $0, spares: spares)
        }
        for count in 1...5 {
            pieces.removeFirst()
            #expect(spares.byteCount <= 300_000)
            #expect(spares.byteCount >= 100_000 * min(count, 2))
        }
        // The oldest went: the last ones are there still.
        let last = try PageMemory(byteCount: 100_004, spares: spares)
        #expect(last.start.load(as: UInt8.self) == 0)
        #expect(spares.byteCount == 100_003)
        // More than all that may be kept goes back at once.
        var large: PageMemory? = try PageMemory(byteCount: 400_000, spares: spares)
        #expect(large?.byteCount == 400_000)
        large = nil
        #expect(spares.byteCount <= 300_000)
    }
}
