import LorryTensor
import Testing

@Suite struct AlignedBufferTests {
    @Test(arguments: [0, 1, 1000, (4 << 20) - 1, 4 << 20, (6 << 20) + 1])
    func isZeroAndAligned(byteCount: Int) {
        let buffer = AlignedBuffer<UInt8>(count: byteCount)
        let alignment = byteCount >= 4 << 20 ? 2 << 20 : 64
        #expect(Int(bitPattern: buffer.pointer) % alignment == 0)
        #expect(buffer.byteCount == byteCount)
        #expect(buffer.elements.allSatisfy { $0 == 0 })
        buffer.elements.update(repeating: 0xff)
        #expect(buffer.elements.allSatisfy { $0 == 0xff })
    }
}
