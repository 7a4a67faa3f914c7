import Foundation
import LorryTensor
import Testing

/// One matmul problem with its weights packed.
private struct Problem {
    let inFeatures: Int
    let outFeatures: Int
    let rowCount: Int
    let x: [Float]
    let weights: [Float]
    let bias: [Float]
    let matrix: PackedMatrix

    init(
        rows: Int, inFeatures: Int, outFeatures: Int, format: WeightFormat, pool: WorkerPool,
        seed: UInt64
    ) throws {
        var generator = SeededGenerator(seed: seed)
        self.inFeatures = inFeatures
        self.outFeatures = outFeatures
        rowCount = rows
        x = generator.floats(rows * inFeatures)
        weights = generator.floats(outFeatures * inFeatures)
        bias = generator.floats(outFeatures)
        matrix = try packed(
            weights, outFeatures: outFeatures, inFeatures: inFeatures, format: format, pool: pool)
    }

    /// Without a bias.
    init(
        x: [Float], weights: [Float], inFeatures: Int, format: WeightFormat, pool: WorkerPool
    ) throws {
        self.inFeatures = inFeatures
        outFeatures = weights.count / inFeatures
        rowCount = x.count / inFeatures
        self.x = x
        self.weights = weights
        bias = [Float](repeating: 0, count: outFeatures)
        matrix = try packed(
            weights, outFeatures: outFeatures, inFeatures: inFeatures, format: format, pool: pool)
    }

    /// Rows `rows` computed in one call; columns not asked for are NaN.
    func run(_ rows: Range<Int>, columns: Range<Int>? = nil, pool: WorkerPool) -> [Float] {
        var y = [Float](repeating: .nan, count: rows.count * outFeatures)
        x.withUnsafeBufferPointer { x in
            guard let x = x.baseAddress else { return }
            matmul(
                x + rows.lowerBound * inFeatures, xStride: inFeatures, rowCount: rows.count,
                weights: matrix, bias: bias, y: &y, yStride: outFeatures, columns: columns,
                pool: pool)
        }
        return y
    }

    /// All rows, where those of `rows` take `columns` from inputs of their own.
    func run(
        rerunning rows: [Range<Int>], _ columns: [Range<Int>], from other: Problem,
        pool: WorkerPool
    ) -> [Float] {
        var y = [Float](repeating: .nan, count: rowCount * outFeatures)
        let count = rows.reduce(0) { $0 + $1.count }
        let inputs = rows.flatMap {
            other.x[$0.lowerBound * inFeatures..<$0.upperBound * inFeatures]
        }
        let copies = AlignedBuffer<Float>(count: max(1, inputs.count * columns.count))
        let outputs = AlignedBuffer<Float>(count: max(1, count * outFeatures * columns.count))
        let reruns = columns.enumerated().map { index, columns in
            let x = copies.pointer + index * inputs.count
            for (place, value) in inputs.enumerated() { x[place] = value }
            return MatmulRerun(
                columns: columns, rows: rows, x: x,
                y: outputs.pointer + index * count * outFeatures)
        }
        x.withUnsafeBufferPointer { x in
            guard let x = x.baseAddress else { return }
            matmul(
                x, xStride: inFeatures, rowCount: rowCount, weights: matrix, bias: bias, y: &y,
                yStride: outFeatures, reruns: reruns, pool: pool)
        }
        return y
    }

    /// Largest error as a share of Σ |x · w| + |bias|, against double precision over what the format
    /// keeps of the weights and what the kernel takes of the rows.
    func error(of y: [Float], rows: Range<Int>, level: KernelLevel) -> Double {
        var weights = [Float](repeating: 0, count: outFeatures * inFeatures)
        for column in 0..<outFeatures {
            weights.withUnsafeMutableBufferPointer { weights in
                guard let base = weights.baseAddress else { return }
                matrix.copyRow(column, to: base + column * inFeatures)
            }
        }
        let x = taken(level)
        var worst = 0.0
        for (index, row) in rows.enumerated() {
            for column in 0..<outFeatures {
                var sum = 0.0
                var magnitude = 0.0
                for k in 0..<inFeatures {
                    let term =
                        Double(x[row * inFeatures + k]) * Double(weights[column * inFeatures + k])
                    sum += term
                    magnitude += abs(term)
                }
                sum += Double(bias[column])
                magnitude += abs(Double(bias[column]))
                let difference = abs(Double(y[index * outFeatures + column]) - sum)
                // A NaN must not pass as "not larger".
                guard difference > 0 || difference.isNaN else { continue }
                worst = difference.isNaN ? .infinity : max(worst, difference / magnitude)
            }
        }
        return worst
    }
}

extension Problem {
    /// The rows as the level's kernel takes them for the matrix's format.
    private func taken(_ level: KernelLevel) -> [Float] {
        switch matrix.format {
        case .f32: x
        case .bf16: level == .avx512BF16 ? OperandFormat.bf16.rounded(x) : x
        case .int8, .int4: (0..<rowCount).flatMap { quantizedRow($0) }
        }
    }

    /// x ≈ scale · q with q = round(x / scale) and scale = max |x| / 127 over 32 inputs; for int4
    /// weights the power of two from there up.
    private func quantizedRow(_ row: Int) -> [Float] {
        stride(from: 0, to: inFeatures, by: 32).flatMap { start -> [Float] in
            let end = min(start + 32, inFeatures)
            let group = x[row * inFeatures + start..<row * inFeatures + end]
            let largest = group.map(abs).max() ?? 0
            if largest == 0 { return Array(group) }
            if matrix.format == .int4 {
                // Smaller groups count as zeros.
                if largest < 0x1p-60 { return group.map { _ in 0 } }
                let scale = exp2((log2(Double(largest) / 127)).rounded(.up))
                return group.map { Float((Double($0) / scale).rounded(.toNearestOrEven) * scale) }
            }
            return group.map {
                ($0 * (127 / largest)).rounded(.toNearestOrEven) * (largest / 127)
            }
        }
    }
}

@Suite struct MatmulTests {
    /// Columns with inputs of their own have the bits of a matmul of these inputs.
    @Test(arguments: Machine.levels, WeightFormat.allCases)
    func rerunsAreAsMatmulsOfTheirOwn(level: KernelLevel, format: WeightFormat) throws {
        let pool = Machine.pool(level, threads: 2)
        let (width, rowCount) = (203, 9)
        let problem = try Problem(
            rows: rowCount, inFeatures: 96, outFeatures: width, format: format, pool: pool, seed: 3)
        let other = try Problem(
            rows: rowCount, inFeatures: 96, outFeatures: width, format: format, pool: pool, seed: 4)
        let plain = problem.run(0..<rowCount, pool: pool)
        var expected = plain
        let (rows, columns) = ([1..<2, 4..<8], [0..<37, 37..<40, 150..<width])
        var changed = [Float](repeating: 0, count: rowCount * width)
        other.x.withUnsafeBufferPointer { x in
            guard let x = x.baseAddress else { return }
            matmul(
                x, xStride: 96, rowCount: rowCount, weights: problem.matrix, bias: problem.bias,
                y: &changed, yStride: width, pool: pool)
        }
        for row in rows.joined() {
            for column in columns.joined() {
                expected[row * width + column] = changed[row * width + column]
            }
        }
        #expect(expected != plain)
        #expect(problem.run(rerunning: rows, columns, from: other, pool: pool) == expected)
        #expect(problem.run(rerunning: [], [], from: other, pool: pool) == plain)
    }

    static let inputs = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 33, 64, 255, 256, 257, 513]
    static let outputs = [1, 2, 15, 16, 17, 31, 32, 33, 48, 64, 65, 80, 113, 129, 147]

    @Test(arguments: Machine.levels, WeightFormat.allCases)
    func matchesDoublePrecisionOverAllTails(level: KernelLevel, format: WeightFormat) throws {
        let pool = Machine.pool(level)
        for inFeatures in Self.inputs {
            for outFeatures in Self.outputs {
                let problem = try Problem(
                    rows: 3, inFeatures: inFeatures, outFeatures: outFeatures, format: format,
                    pool: pool, seed: UInt64(inFeatures * 1000 + outFeatures))
                let y = problem.run(0..<3, pool: pool)
                let error = problem.error(of: y, rows: 0..<3, level: level)
                #expect(error <= Tolerance.matmul, "K \(inFeatures), N \(outFeatures)")
            }
        }
    }

    @Test(arguments: Machine.levels, WeightFormat.allCases)
    func bitsDependNeitherOnRowsNorOnThreads(level: KernelLevel, format: WeightFormat) throws {
        let pools = (1...3).map { Machine.pool(level, threads: $0) }
        for (inFeatures, outFeatures) in [(1, 17), (37, 150), (256, 129), (601, 147)] {
            let rows = 200
            let problem = try Problem(
                rows: rows, inFeatures: inFeatures, outFeatures: outFeatures, format: format,
                pool: pools[0], seed: 7)
            let alone = (0..<rows).flatMap { problem.run($0..<$0 + 1, pool: pools[0]) }
            for pool in pools {
                for count in Array(1...41) + [64, 127, 200] {
                    let start = (rows - count) / 2
                    let y = problem.run(start..<start + count, pool: pool)
                    let expected = alone[start * outFeatures..<(start + count) * outFeatures]
                    #expect(
                        bits(y) == bits(Array(expected)),
                        "K \(inFeatures), \(count) rows, \(pool.threadCount) threads")
                }
            }
        }
    }

    @Test(arguments: Machine.levels, WeightFormat.allCases)
    func bitsDoNotDependOnColumnCuts(level: KernelLevel, format: WeightFormat) throws {
        let pool = Machine.pool(level, threads: 2)
        let outFeatures = 83
        let problem = try Problem(
            rows: 9, inFeatures: 300, outFeatures: outFeatures, format: format, pool: pool,
            seed: 11)
        for rows in [1, 2, 9] {
            let whole = problem.run(0..<rows, pool: pool)
            for start in 0..<outFeatures {
                for end in stride(from: start, through: outFeatures, by: 7) {
                    let y = problem.run(0..<rows, columns: start..<end, pool: pool)
                    let same = y.indices.allSatisfy { index in
                        (start..<end).contains(index % outFeatures)
                            ? y[index].bitPattern == whole[index].bitPattern : y[index].isNaN
                    }
                    #expect(same, "columns \(start)..<\(end) of \(rows) rows")
                }
            }
        }
    }

    @Test(arguments: WeightFormat.allCases)
    func fusedLevelsGiveTheSameBits(format: WeightFormat) throws {
        // Only one level rounds rows to bf16.
        let levels = Machine.fusedLevels.filter { format != .bf16 || $0 != .avx512BF16 }
        let results = try levels.map { level in
            let pool = Machine.pool(level)
            let problem = try Problem(
                rows: 13, inFeatures: 531, outFeatures: 147, format: format, pool: pool, seed: 5)
            return bits(problem.run(0..<13, pool: pool))
        }
        #expect(Set(results).count <= 1)
    }

    @Test(arguments: Machine.levels)
    func agreesWithOpenBLAS(level: KernelLevel) throws {
        let pool = Machine.pool(level, threads: 2)
        let (rows, inFeatures, outFeatures) = (37, 192, 208)
        let problem = try Problem(
            rows: rows, inFeatures: inFeatures, outFeatures: outFeatures, format: .f32, pool: pool,
            seed: 3)
        var expected = (0..<rows).flatMap { _ in problem.bias }
        problem.x.withUnsafeBufferPointer { x in
            problem.weights.withUnsafeBufferPointer { weights in
                guard let x = x.baseAddress, let weights = weights.baseAddress else { return }
                DenseAlgebra.gemm(
                    .init(x, stride: inFeatures), .init(weights, stride: inFeatures, .transposed),
                    m: rows, n: outFeatures, k: inFeatures, beta: 1, c: &expected,
                    cStride: outFeatures)
            }
        }
        let y = problem.run(0..<rows, pool: pool)
        // Both sum 192 products of at most 1.
        let isNear = zip(y, expected).allSatisfy {
            abs($0 - $1) <= Float(192 * Tolerance.matmul)
        }
        #expect(isNear)
    }

    @Test(arguments: Machine.levels, WeightFormat.allCases)
    func doesNotHideWhatIsNotFinite(level: KernelLevel, format: WeightFormat) throws {
        let pool = Machine.pool(level)
        let weights = [Float](repeating: 0.5, count: 3 * 70)
        let matrix = try packed(weights, outFeatures: 3, inFeatures: 70, format: format, pool: pool)
        for value in [Float.nan, .infinity] {
            for place in [0, 17, 40, 69] {
                var x = [Float](repeating: 1, count: 2 * 70)
                x[place] = value
                var y = [Float](repeating: 0, count: 6)
                matmul(
                    x, xStride: 70, rowCount: 2, weights: matrix, bias: nil, y: &y, yStride: 3,
                    pool: pool)
                #expect(y[..<3].allSatisfy { !$0.isFinite }, "\(value) at \(place)")
                #expect(y[3...].allSatisfy { abs($0 - 35) < 0.5 })
            }
        }
    }

    /// Scales of rows and weights far from 1, and groups of zeros among them: int4 adds exponents.
    @Test(arguments: Machine.levels, [WeightFormat.int8, .int4])
    func holdsForScalesOfAllSizes(level: KernelLevel, format: WeightFormat) throws {
        let pool = Machine.pool(level)
        let (inFeatures, outFeatures) = (192, 17)
        // Rows of 40 have scales of 2^-1, for which a scale of 0 would come out infinite. The others
        // are the ends of what int4 takes and sizes between them.
        let sizes: [Float] = [0, 0x1p-59, 0x1p-49, 0x1p-20, 1, 3, 40, 0x1p55, 0x1.fp59]
        var generator = SeededGenerator(seed: 23)
        for (rowSize, weightSize) in sizes.flatMap({ row in sizes.map { (row, $0) } }) {
            var x = generator.floats(5 * inFeatures).map { $0 * rowSize }
            var weights = generator.floats(outFeatures * inFeatures).map { $0 * weightSize }
            for row in 0..<5 { zero(&x, group: row, of: row, width: inFeatures) }
            for row in 0..<outFeatures {
                zero(&weights, group: row % 6, of: row, width: inFeatures)
            }
            let problem = try Problem(
                x: x, weights: weights, inFeatures: inFeatures, format: format, pool: pool)
            let y = problem.run(0..<5, pool: pool)
            let error = problem.error(of: y, rows: 0..<5, level: level)
            #expect(error <= Tolerance.matmul, "rows of \(rowSize), weights of \(weightSize)")
        }
    }

    /// Sets 32 elements of a row to 0.
    private func zero(_ matrix: inout [Float], group: Int, of row: Int, width: Int) {
        let start = row * width + group * 32
        for index in start..<start + 32 { matrix[index] = 0 }
    }

    /// What int4 has no exponents for is not taken for another number.
    @Test(arguments: Machine.levels)
    func int4RowsBeyondTheBoundComeOutAsNaN(level: KernelLevel) throws {
        let pool = Machine.pool(level)
        let weights = [Float](repeating: 0.5, count: 64)
        let matrix = try packed(
            weights, outFeatures: 1, inFeatures: 64, format: .int4, pool: pool)
        let values: [(Float, Bool)] = [(0x1.fp59, true), (0x1p60, false), (-0x1p90, false)]
        for ((value, isTaken), place) in values.flatMap({ value in [3, 50].map { (value, $0) } }) {
            var x = [Float](repeating: 1, count: 64)
            x[place] = value
            var y: [Float] = [0]
            matmul(
                x, xStride: 64, rowCount: 1, weights: matrix, bias: nil, y: &y, yStride: 1,
                pool: pool)
            #expect(
                isTaken ? abs(y[0] / value - 0.5) < 0.01 : y[0].isNaN, "\(value) at \(place)")
        }
    }

    @Test func readsRowsAtTheirStrideAndLeavesTheRestAlone() throws {
        let pool = Machine.pool(Kernels.level)
        let weights: [Float] = [1, 2, 3, 4, 5, 6]
        let matrix = try packed(weights, outFeatures: 2, inFeatures: 3, format: .f32, pool: pool)
        let x: [Float] = [1, 1, 1, .nan, 1, 0, 0, .nan]
        var y = [Float](repeating: -1, count: 10)
        matmul(
            x, xStride: 4, rowCount: 2, weights: matrix, bias: nil, y: &y, yStride: 5, pool: pool)
        #expect(y == [6, 15, -1, -1, -1, 1, 4, -1, -1, -1])
    }
}
