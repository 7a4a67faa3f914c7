import LorryTensor
import Testing

@Suite struct PackedMatrixTests {
    /// Every element type and format, odd sizes, sources stacked across panel borders, both ways
    /// of storing them.
    @Test(arguments: WeightFormat.allCases, [false, true])
    func copyRowReturnsEveryStackedRow(format: WeightFormat, transposed: Bool) throws {
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
            let matrix = try withExtendedLifetime(storage) {
                try PackedMatrix(
                    sources: sources, inFeatures: inFeatures, format: format, pool: pool)
            }
            #expect(matrix.outFeatures == 43)
            var row = [Float](repeating: .nan, count: inFeatures)
            for index in 0..<43 {
                matrix.copyRow(index, to: &row)
                let isNear = zip(row, expected[index]).enumerated().allSatisfy { k, pair in
                    abs(pair.0 - pair.1) <= allowedError(format, expected[index], k)
                }
                #expect(isNear, "row \(index) of \(inFeatures) inputs")
            }
        }
    }

    /// What the format may change of number `k` of a row.
    private func allowedError(_ format: WeightFormat, _ row: [Float], _ k: Int) -> Float {
        let start = k / 32 * 32
        let largest = row[start..<min(start + 32, row.count)].map(abs).max() ?? 0
        switch format {
        case .f32, .bf16: return 0
        // Half a step, which rounding the scale up to bf16 widens by at most 1 / 128.
        case .int8: return largest / 127 * 0.505
        // With the largest number at -8 of 8.8 steps its opposite may lie at 7 of 8.8.
        case .int4: return largest * 0.21
        }
    }

    @Test(arguments: [(WeightFormat.int8, -127...127), (.int4, -8...7)])
    func keepsWholeStepsExactly(format: WeightFormat, steps: ClosedRange<Int>) throws {
        let pool = Machine.pool(Kernels.level)
        var generator = SeededGenerator(seed: 3)
        var values = (0..<20 * 96).map { _ in
            Float(Int.random(in: steps, using: &generator)) / 64
        }
        for group in stride(from: 0, to: values.count, by: 32) {
            values[group + 5] = Float(steps.lowerBound) / 64
        }
        let matrix = try packed(values, outFeatures: 20, inFeatures: 96, format: format, pool: pool)
        var row = [Float](repeating: .nan, count: 96)
        for index in 0..<20 {
            matrix.copyRow(index, to: &row)
            #expect(row == Array(values[index * 96..<(index + 1) * 96]))
        }
    }

    @Test(arguments: [WeightFormat.int8, .int4], [Float.nan, .infinity, -.infinity])
    func refusesWhatIsNotFinite(format: WeightFormat, value: Float) throws {
        let pool = Machine.pool(Kernels.level)
        var values = [Float](repeating: 1, count: 40 * 64)
        values[33 * 64 + 40] = value
        let refused = UnquantizableSource(index: 0)
        #expect(throws: refused) {
            try packed(values, outFeatures: 40, inFeatures: 64, format: format, pool: pool)
        }
        // Single precision and bf16 hold it.
        let held = try packed(values, outFeatures: 40, inFeatures: 64, format: .bf16, pool: pool)
        var row = [Float](repeating: 0, count: 64)
        held.copyRow(33, to: &row)
        #expect(!row[40].isFinite && row[39] == 1)
    }

    /// Of the sources that share a panel the one at fault is named.
    @Test func namesTheSourceThatItRefuses() {
        let good = [Float](repeating: 1, count: 3 * 32)
        let bad = good[1...] + [.nan]
        let error = #expect(throws: UnquantizableSource.self) {
            try good.withUnsafeBytes { good in
                try Array(bad).withUnsafeBytes { bad in
                    try PackedMatrix(
                        sources: [good, bad, bad].map {
                            MatrixSource(bytes: $0, elementType: .f32, outFeatures: 3)
                        }, inFeatures: 32, format: .int8, pool: Machine.pool(Kernels.level))
                }
            }
        }
        #expect(error?.index == 1)
    }

    /// The largest numbers that int4 takes, and such as are too small to count beside others.
    @Test func int4HoldsNumbersOfAllUsableSizes() throws {
        let pool = Machine.pool(Kernels.level)
        let sizes: [Float] = [0x1p59, 1, 0x1p-40]
        for size in sizes {
            let values = (0..<32).map { Float($0 % 16 - 8) * size / 8 }
            let matrix = try packed(
                values, outFeatures: 1, inFeatures: 32, format: .int4, pool: pool)
            var row = [Float](repeating: .nan, count: 32)
            matrix.copyRow(0, to: &row)
            #expect(row == values, "\(size)")
        }
        let small = [Float](repeating: 0x1p-70, count: 32)
        let matrix = try packed(small, outFeatures: 1, inFeatures: 32, format: .int4, pool: pool)
        var row = [Float](repeating: .nan, count: 32)
        matrix.copyRow(0, to: &row)
        #expect(row.allSatisfy { $0 == 0 })
        #expect(throws: UnquantizableSource(index: 0)) {
            try packed([0x1p60], outFeatures: 1, inFeatures: 1, format: .int4, pool: pool)
        }
    }

    @Test func countsPaddingInItsBytes() throws {
        let pool = Machine.pool(Kernels.level)
        let values = [Float](repeating: 1, count: 17 * 3)
        let f32 = try packed(values, outFeatures: 17, inFeatures: 3, format: .f32, pool: pool)
        let bf16 = try packed(values, outFeatures: 17, inFeatures: 3, format: .bf16, pool: pool)
        #expect(f32.byteCount == 2 * 3 * 16 * 4)
        #expect(bf16.byteCount == 2 * 4 * 16 * 2)
        let int8 = try packed(values, outFeatures: 17, inFeatures: 3, format: .int8, pool: pool)
        let int4 = try packed(values, outFeatures: 17, inFeatures: 3, format: .int4, pool: pool)
        #expect(int8.byteCount == 2 * 1088)
        #expect(int4.byteCount == 2 * 576)
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
