import LorryTensor
import Testing

/// How a batch's rows are spread over adapters.
enum SegmentDistribution: String, CaseIterable {
    case distinct, identical, uniform, zipf, skewed

    /// Rows per segment; the sum is `rows`.
    func rowCounts(rows: Int, generator: inout SeededGenerator) -> [Int] {
        let adapters = 8
        switch self {
        case .distinct: return [Int](repeating: 1, count: rows)
        case .identical: return [rows]
        case .uniform, .zipf, .skewed:
            var counts = [Int](repeating: 0, count: adapters)
            for _ in 0..<rows {
                let draw = Double.random(in: 0..<1, using: &generator)
                counts[min(adapters - 1, place(draw, of: adapters))] += 1
            }
            return counts.filter { $0 > 0 }
        }
    }

    private func place(_ draw: Double, of adapters: Int) -> Int {
        switch self {
        case .zipf:
            // P(i) ∝ 1 / (i + 1)
            let total = (1...adapters).reduce(0) { $0 + 1 / Double($1) }
            var left = draw * total
            for index in 0..<adapters {
                left -= 1 / Double(index + 1)
                if left < 0 { return index }
            }
            return adapters - 1
        case .skewed: return draw < 0.5 ? 0 : 1 + Int((draw - 0.5) * 2 * Double(adapters - 1))
        case .uniform, .distinct, .identical: return Int(draw * Double(adapters))
        }
    }
}

/// A batch of segments with factors of mixed ranks, and one row before and after in no segment.
private struct Batch {
    let inFeatures: Int
    let outFeatures: Int
    let rowCount: Int
    let x: [Float]
    let y: [Float]
    let vCount: Int
    var shrinks: [ShrinkSegment] = []
    var expands: [ExpandSegment] = []
    /// The factors as the kernels read them, widened: A `[rank, in]`, B `[rank, out]`.
    var factors: [(a: [Float], b: [Float])] = []
    private var storage: [AlignedBuffer<UInt8>] = []

    static let outStart = 3
    var yStride: Int { outFeatures + 5 }

    init(
        rowCounts: [Int], ranks: [Int], inFeatures: Int, outFeatures: Int, format: OperandFormat,
        generator: inout SeededGenerator
    ) {
        self.inFeatures = inFeatures
        self.outFeatures = outFeatures
        rowCount = rowCounts.reduce(0, +) + 2
        x = generator.floats(rowCount * inFeatures)
        y = generator.floats(rowCount * (outFeatures + 5))
        var row = 1
        var offset = 0
        for (index, count) in rowCounts.enumerated() {
            let rank = ranks[index % ranks.count]
            let a = generator.floats(rank * inFeatures)
            let b = generator.floats(rank * outFeatures)
            let storedA = format.encode(a)
            let storedB = format.encode(b)
            storage += [storedA, storedB]
            factors.append((format.rounded(a), format.rounded(b)))
            shrinks.append(
                ShrinkSegment(
                    rowStart: row, rowCount: count, a: storedA.pointer, rank: rank, format: format,
                    vOffset: offset))
            expands.append(
                ExpandSegment(
                    rowStart: row, rowCount: count, b: storedB.pointer, rank: rank, format: format,
                    vOffset: offset, vStride: rank, outStart: Self.outStart,
                    outFeatures: outFeatures, scale: 0.75))
            row += count
            offset += count * rank
        }
        vCount = offset
    }

    func shrink(_ segments: [ShrinkSegment]? = nil, pool: WorkerPool) -> [Float] {
        var v = [Float](repeating: .nan, count: vCount)
        segmentedShrink(
            x, xStride: inFeatures, inFeatures: inFeatures, segments: segments ?? shrinks, v: &v,
            pool: pool)
        return v
    }

    func expand(_ v: [Float], _ segments: [ExpandSegment]? = nil, pool: WorkerPool) -> [Float] {
        var result = y
        segmentedExpand(
            v, segments: segments ?? expands, y: &result, yStride: yStride, pool: pool)
        return result
    }

    /// The same work with every segment cut in two, at the row that the generator picks.
    func cut(generator: inout SeededGenerator) -> ([ShrinkSegment], [ExpandSegment]) {
        var cutShrinks: [ShrinkSegment] = []
        var cutExpands: [ExpandSegment] = []
        for (shrink, expand) in zip(shrinks, expands) {
            let first = Int.random(in: 0...shrink.rowCount, using: &generator)
            for (start, count) in [(0, first), (first, shrink.rowCount - first)] {
                var partShrink = shrink
                partShrink.rowStart += start
                partShrink.rowCount = count
                partShrink.vOffset += start * shrink.rank
                cutShrinks.append(partShrink)
                var partExpand = expand
                partExpand.rowStart += start
                partExpand.rowCount = count
                partExpand.vOffset += start * expand.rank
                cutExpands.append(partExpand)
            }
        }
        return (cutShrinks, cutExpands)
    }

    /// Largest errors of v and of y (computed from that v) as shares of the terms' magnitude;
    /// infinite where something outside the segments changed.
    func errors(v: [Float], y result: [Float]) -> (shrink: Double, expand: Double) {
        var worst = (shrink: 0.0, expand: 0.0)
        var expected = y.map { Double($0) }
        var magnitudes = y.map { _ in 0.0 }
        for (segment, factor) in zip(shrinks, factors) {
            for row in 0..<segment.rowCount {
                for j in 0..<segment.rank {
                    var sum = 0.0
                    var magnitude = 0.0
                    for i in 0..<inFeatures {
                        let term =
                            Double(x[(segment.rowStart + row) * inFeatures + i])
                            * Double(factor.a[j * inFeatures + i])
                        sum += term
                        magnitude += abs(term)
                    }
                    let got = v[segment.vOffset + row * segment.rank + j]
                    let error = abs(Double(got) - sum) / magnitude
                    worst.shrink = error.isNaN ? .infinity : max(worst.shrink, error)
                    for o in 0..<outFeatures {
                        let index = (segment.rowStart + row) * yStride + Self.outStart + o
                        let term = 0.75 * Double(got) * Double(factor.b[j * outFeatures + o])
                        expected[index] += term
                        magnitudes[index] += abs(term)
                    }
                }
            }
        }
        for index in y.indices {
            let difference = abs(Double(result[index]) - expected[index])
            let magnitude = magnitudes[index] + abs(Double(y[index]))
            let error =
                magnitudes[index] == 0 && difference != 0 ? .infinity : difference / magnitude
            worst.expand = error.isNaN ? .infinity : max(worst.expand, error)
        }
        return worst
    }
}

@Suite struct AdapterOperatorsTests {
    static let ranks = [8, 1, 64, 16, 3, 128, 33, 2]

    @Test(arguments: Machine.levels, OperandFormat.allCases)
    func everyRankMatchesDoublePrecision(level: KernelLevel, format: OperandFormat) {
        let pool = Machine.pool(level)
        var generator = SeededGenerator(seed: 31)
        for rank in Array(1...40) + [63, 64, 65, 127, 128, 255, 256, 511, 512] {
            let batch = Batch(
                rowCounts: [1, 2], ranks: [rank], inFeatures: 35, outFeatures: 37, format: format,
                generator: &generator)
            let v = batch.shrink(pool: pool)
            let errors = batch.errors(v: v, y: batch.expand(v, pool: pool))
            #expect(errors.shrink <= Tolerance.shrink, "rank \(rank)")
            #expect(errors.expand <= Tolerance.expand, "rank \(rank)")
        }
    }

    @Test(arguments: Machine.levels, OperandFormat.allCases)
    func everyWidthMatchesDoublePrecision(level: KernelLevel, format: OperandFormat) {
        let pool = Machine.pool(level, threads: 2)
        var generator = SeededGenerator(seed: 32)
        for width in Array(1...36) + [63, 64, 65, 127, 129, 200, 511, 512, 513, 700] {
            let batch = Batch(
                rowCounts: [1, 5, 7], ranks: [4, 9, 16], inFeatures: width,
                outFeatures: 1 + (width * 7) % 600, format: format, generator: &generator)
            let v = batch.shrink(pool: pool)
            let errors = batch.errors(v: v, y: batch.expand(v, pool: pool))
            #expect(errors.shrink <= Tolerance.shrink, "width \(width)")
            #expect(errors.expand <= Tolerance.expand, "width \(width)")
        }
    }

    @Test(arguments: Machine.levels, SegmentDistribution.allCases)
    func everyDistributionMatchesAndKeepsItsBits(
        level: KernelLevel, distribution: SegmentDistribution
    ) {
        let pools = (1...3).map { Machine.pool(level, threads: $0) }
        for format in OperandFormat.allCases {
            var generator = SeededGenerator(seed: 33)
            for rows in [1, 5, 32, 150] {
                let batch = Batch(
                    rowCounts: distribution.rowCounts(rows: rows, generator: &generator),
                    ranks: Self.ranks, inFeatures: 70, outFeatures: 83, format: format,
                    generator: &generator)
                let v = batch.shrink(pool: pools[0])
                let y = batch.expand(v, pool: pools[0])
                let errors = batch.errors(v: v, y: y)
                #expect(errors.shrink <= Tolerance.shrink, "\(rows) rows")
                #expect(errors.expand <= Tolerance.expand, "\(rows) rows")
                for pool in pools {
                    let (shrinks, expands) = batch.cut(generator: &generator)
                    #expect(bits(batch.shrink(pool: pool)) == bits(v))
                    #expect(bits(batch.shrink(shrinks, pool: pool)) == bits(v))
                    #expect(bits(batch.expand(v, pool: pool)) == bits(y))
                    #expect(bits(batch.expand(v, expands, pool: pool)) == bits(y))
                }
            }
        }
    }

    @Test(arguments: OperandFormat.allCases)
    func fusedLevelsGiveTheSameBits(format: OperandFormat) {
        let results = Machine.fusedLevels.map { level in
            var generator = SeededGenerator(seed: 34)
            let batch = Batch(
                rowCounts: [1, 2, 9, 30], ranks: Self.ranks, inFeatures: 133, outFeatures: 211,
                format: format, generator: &generator)
            let pool = Machine.pool(level)
            let v = batch.shrink(pool: pool)
            return bits(v) + bits(batch.expand(v, pool: pool))
        }
        #expect(Set(results).count <= 1)
    }

    @Test func oneShrinkServesSeveralTargets() {
        let pool = Machine.pool(Kernels.level)
        // v of two rows, rank 3: the first target uses ranks 0 and 1, the second rank 2.
        let v: [Float] = [1, 2, 3, 4, 5, 6]
        let first: [Float] = [1, 10]
        let second: [Float] = [100, 1000]
        var y = [Float](repeating: 0, count: 6)
        first.withUnsafeBytes { first in
            second.withUnsafeBytes { second in
                guard let first = first.baseAddress, let second = second.baseAddress else { return }
                segmentedExpand(
                    v,
                    segments: [
                        ExpandSegment(
                            rowStart: 0, rowCount: 2, b: first, rank: 2, format: .f32, vOffset: 0,
                            vStride: 3, outStart: 0, outFeatures: 1, scale: 1),
                        ExpandSegment(
                            rowStart: 0, rowCount: 2, b: second, rank: 1, format: .f32, vOffset: 2,
                            vStride: 3, outStart: 1, outFeatures: 2, scale: 2),
                    ], y: &y, yStride: 3, pool: pool)
            }
        }
        #expect(y == [21, 600, 6000, 54, 1200, 12000])
    }

    @Test(arguments: Machine.levels)
    func vectorsScaleAndAddTheirColumns(level: KernelLevel) {
        let pool = Machine.pool(level, threads: 2)
        let rows = 150
        let stride = 40
        let vector = (0..<33).map { Float($0 + 2) }
        var scaled = [Float](repeating: 1, count: rows * stride)
        var added = scaled
        vector.withUnsafeBufferPointer { vector in
            guard let vector = vector.baseAddress else { return }
            let segments = [
                VectorSegment(rowStart: 1, rowCount: 140, vector: vector, start: 4, count: 33)
            ]
            segmentedScale(&scaled, yStride: stride, segments: segments, pool: pool)
            segmentedAdd(&added, yStride: stride, segments: segments, pool: pool)
        }
        for index in scaled.indices {
            let (row, column) = (index / stride, index % stride)
            let inside = (1..<141).contains(row) && (4..<37).contains(column)
            #expect(scaled[index] == (inside ? vector[column - 4] : 1))
            #expect(added[index] == (inside ? 1 + vector[column - 4] : 1))
        }
    }
}
