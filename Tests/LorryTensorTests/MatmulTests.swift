import LorryTensor
import Testing

@Suite struct MatmulTests {
    /// Columns with inputs of their own have the bits of a matmul of these inputs.
    @Test(arguments: Machine.levels, WeightFormat.allCases)
    func rerunsAreAsMatmulsOfTheirOwn(level: KernelLevel, format: WeightFormat) throws {
        let pool = Machine.pool(level, threads: 2)
        let (width, rowCount) = (203, 9)
        let problem = try MatmulProblem(
            rows: rowCount, inFeatures: 96, outFeatures: width, format: format, pool: pool, seed: 3)
        let other = try MatmulProblem(
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
                let problem = try MatmulProblem(
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
            let problem = try MatmulProblem(
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
        let problem = try MatmulProblem(
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
            let problem = try MatmulProblem(
                rows: 13, inFeatures: 531, outFeatures: 147, format: format, pool: pool, seed: 5)
            return bits(problem.run(0..<13, pool: pool))
        }
        #expect(Set(results).count <= 1)
    }

    @Test(arguments: Machine.levels)
    func agreesWithOpenBLAS(level: KernelLevel) throws {
        let pool = Machine.pool(level, threads: 2)
        let (rows, inFeatures, outFeatures) = (37, 192, 208)
        let problem = try MatmulProblem(
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
            let problem = try MatmulProblem(
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
