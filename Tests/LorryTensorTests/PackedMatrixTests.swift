import LorryTensor
import Testing

@Suite struct PackedMatrixTests {
    /// Every element type and format, odd sizes, sources stacked across panel borders, both ways
    /// of storing them.
    @Test(arguments: WeightFormat.allCases, [false, true])
    func copyRowReturnsEveryStackedRow(format: WeightFormat, transposed: Bool) {
        let pool = Machine.pool(Kernels.level, threads: 2)
        var generator = SeededGenerator(seed: 21)
        for inFeatures in [1, 2, 3, 15, 64, 65, 131] {
            var sources: [MatrixSource] = []
            var storage: [AlignedBuffer<UInt8>] = []
            var expected: [[Float]] = []
            let shapes: [(Int, ElementType)] = [(1, .f32), (19, .bf16), (16, .f16), (7, .f32)]
            for (outFeatures, elementType) in shapes {
                let values = (0..<outFeatures * inFeatures).map { _ in
                    // Exact in every element type.
                    Float(Int.random(in: -128...127, using: &generator)) / 16
                }
                expected += (0..<outFeatures).map { row in
                    (0..<inFeatures).map { k in
                        values[transposed ? k * outFeatures + row : row * inFeatures + k]
                    }
                }
                let bytes = encode(values, as: elementType)
                storage.append(bytes)
                sources.append(
                    MatrixSource(
                        bytes: UnsafeRawBufferPointer(start: bytes.pointer, count: bytes.count),
                        elementType: elementType, outFeatures: outFeatures,
                        transposed: transposed))
            }
            let matrix = withExtendedLifetime(storage) {
                PackedMatrix(
                    sources: sources, inFeatures: inFeatures, format: format, pool: pool)
            }
            #expect(matrix.outFeatures == 43)
            var row = [Float](repeating: .nan, count: inFeatures)
            for index in 0..<43 {
                matrix.copyRow(index, to: &row)
                #expect(row == expected[index], "row \(index) of \(inFeatures) inputs")
            }
        }
    }

    @Test func countsPaddingInItsBytes() {
        let pool = Machine.pool(Kernels.level)
        let values = [Float](repeating: 1, count: 17 * 3)
        let f32 = packed(values, outFeatures: 17, inFeatures: 3, format: .f32, pool: pool)
        let bf16 = packed(values, outFeatures: 17, inFeatures: 3, format: .bf16, pool: pool)
        #expect(f32.byteCount == 2 * 3 * 16 * 4)
        #expect(bf16.byteCount == 2 * 4 * 16 * 2)
    }

    private func encode(_ values: [Float], as elementType: ElementType) -> AlignedBuffer<UInt8> {
        switch elementType {
        case .f32: return OperandFormat.f32.encode(values)
        case .bf16: return OperandFormat.bf16.encode(values)
        case .f16:
            let buffer = AlignedBuffer<UInt8>(count: values.count * 2)
            let halves = UnsafeMutableRawPointer(buffer.pointer)
            for (index, value) in values.enumerated() {
                halves.storeBytes(
                    of: Float16(value).bitPattern, toByteOffset: index * 2, as: UInt16.self)
            }
            return buffer
        }
    }
}
