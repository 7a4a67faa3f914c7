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
    let format: OperandFormat
    /// The factors as the kernels read them, in single precision: A `[rank, in]`, B `[rank, out]`.
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
        self.format = format
        rowCount = rowCounts.reduce(0, +) + 2
        x = generator.floats(rowCount * inFeatures)
        y = generator.floats(rowCount * (outFeatures + 5))
        var row = 1
        var offset = 0
        for (index, count) in rowCounts.enumerated() {
            let rank = ranks[index % ranks.count]
            let a = generator.floats(rank * inFeatures)
            let b = generator.floats(rank * outFeatures)
            let storedA = AlignedBuffer<UInt8>(
                count: ShrinkFactor.byteCount(rank: rank, inFeatures: inFeatures, format: format))
            let storedB = AlignedBuffer<UInt8>(
                count: ExpandFactor.byteCount(
                    rank: rank, outFeatures: outFeatures, format: format))
            ShrinkFactor.pack(
                a, rank: rank, inFeatures: inFeatures, format: format, to: storedA.pointer)
            ExpandFactor.pack(
                transposed(b, width: outFeatures), rank: rank, outFeatures: outFeatures,
                format: format, to: storedB.pointer)
            storage += [storedA, storedB]
            factors.append(
                (
                    mapRows(a, width: inFeatures, format.rounded),
                    mapRows(b, width: outFeatures, format.rounded)
                ))
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
    func errors(
        v: [Float], y result: [Float], level: KernelLevel
    ) -> (shrink: Double, expand: Double) {
        let x = format.seen(x, at: level)
        let seenV = format.seen(v, at: level)
        var worst = (shrink: 0.0, expand: 0.0)
        var expected = y.map { Double($0) }
        var magnitudes = y.map { _ in 0.0 }
        for (segment, factor) in zip(shrinks, factors) {
            for row in 0..<segment.rowCount {
                let start = (segment.rowStart + row) * inFeatures
                let input = x[start..<start + inFeatures].map { Double($0) }
                let vStart = segment.vOffset + row * segment.rank
                for j in 0..<segment.rank {
                    let (sum, magnitude) = dot(
                        input, factor.a[j * inFeatures..<(j + 1) * inFeatures])
                    let error = abs(Double(v[vStart + j]) - sum) / magnitude
                    worst.shrink = error.isNaN ? .infinity : max(worst.shrink, error)
                }
                addExpected(
                    Array(seenV[vStart..<vStart + segment.rank]), factor.b,
                    at: (segment.rowStart + row) * yStride + Self.outStart, &expected, &magnitudes)
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

    /// x · a and Σ |x| |a|; for int8, which rounds x to parts of its largest, Σ max |x| · |a|.
    private func dot(_ x: [Double], _ a: ArraySlice<Float>) -> (sum: Double, magnitude: Double) {
        let largest = format == .int8 ? x.reduce(0) { max($0, abs($1)) } : 0
        return zip(x, a).reduce((0, 0)) { sums, pair in
            (
                sums.0 + pair.0 * Double(pair.1),
                sums.1 + max(largest, abs(pair.0)) * abs(Double(pair.1))
            )
        }
    }

    /// Adds a row of v · B to what y should be.
    private func addExpected(
        _ v: [Float], _ b: [Float], at start: Int, _ expected: inout [Double],
        _ magnitudes: inout [Double]
    ) {
        // For int8 a rank's scale goes into v before it is rounded.
        let scales = v.indices.map { j in
            Double(b[j * outFeatures..<(j + 1) * outFeatures].reduce(0) { max($0, abs($1)) })
        }
        let largest =
            format == .int8
            ? zip(v, scales).reduce(0) { max($0, abs(Double($1.0)) * $1.1) } : 0
        for j in v.indices {
            for o in 0..<outFeatures {
                let factor = 0.75 * Double(b[j * outFeatures + o])
                expected[start + o] += Double(v[j]) * factor
                let share = largest > 0 ? largest / max(scales[j], 1e-30) : 0
                magnitudes[start + o] += max(abs(Double(v[j])), share) * abs(factor)
            }
        }
    }
}

@Suite struct AdapterOperatorsTests {
    static let ranks = [8, 1, 64, 16, 3, 128, 33, 2]

    private func tolerance(_ format: OperandFormat) -> (shrink: Double, expand: Double) {
        format == .int8
            ? (Tolerance.words, Tolerance.words) : (Tolerance.shrink, Tolerance.expand)
    }

    @Test(arguments: Machine.levels, OperandFormat.allCases)
    func everyRankMatchesDoublePrecision(level: KernelLevel, format: OperandFormat) {
        let pool = Machine.pool(level)
        var generator = SeededGenerator(seed: 31)
        for rank in Array(1...40) + [63, 64, 65, 127, 128, 255, 256, 511, 512] {
            let batch = Batch(
                rowCounts: [1, 2], ranks: [rank], inFeatures: 35, outFeatures: 37, format: format,
                generator: &generator)
            let v = batch.shrink(pool: pool)
            let errors = batch.errors(v: v, y: batch.expand(v, pool: pool), level: level)
            #expect(errors.shrink <= tolerance(format).shrink, "rank \(rank)")
            #expect(errors.expand <= tolerance(format).expand, "rank \(rank)")
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
            let errors = batch.errors(v: v, y: batch.expand(v, pool: pool), level: level)
            #expect(errors.shrink <= tolerance(format).shrink, "width \(width)")
            #expect(errors.expand <= tolerance(format).expand, "width \(width)")
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
                let errors = batch.errors(v: v, y: y, level: level)
                #expect(errors.shrink <= tolerance(format).shrink, "\(rows) rows")
                #expect(errors.expand <= tolerance(format).expand, "\(rows) rows")
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

    /// Levels with fused multiply-add agree, but for bf16 where pairs have an instruction of their
    /// own; int8 sums are exact, so that there v agrees on all levels.
    @Test(arguments: OperandFormat.allCases)
    func levelsGiveTheSameBits(format: OperandFormat) {
        func run(_ level: KernelLevel) -> (v: [UInt32], y: [UInt32]) {
            var generator = SeededGenerator(seed: 34)
            let batch = Batch(
                rowCounts: [1, 2, 9, 30], ranks: Self.ranks, inFeatures: 133, outFeatures: 211,
                format: format, generator: &generator)
            let pool = Machine.pool(level)
            let v = batch.shrink(pool: pool)
            return (bits(v), bits(batch.expand(v, pool: pool)))
        }
        let alike = Machine.fusedLevels.filter { format != .bf16 || $0 != .avx512BF16 }
        #expect(Set(alike.map { run($0).v + run($0).y }).count <= 1)
        if format == .int8 { #expect(Set(Machine.levels.map { run($0).v }).count == 1) }
    }

    /// Rows over more inputs than are prepared at a time, for one row and for several.
    @Test(arguments: Machine.levels, OperandFormat.allCases)
    func longRowsMatchAndKeepTheirBits(level: KernelLevel, format: OperandFormat) {
        var generator = SeededGenerator(seed: 35)
        let batch = Batch(
            rowCounts: [1, 6], ranks: [9, 70], inFeatures: 13_001, outFeatures: 5, format: format,
            generator: &generator)
        let pool = Machine.pool(level, threads: 2)
        let v = batch.shrink(pool: pool)
        let errors = batch.errors(v: v, y: batch.expand(v, pool: pool), level: level)
        #expect(errors.shrink <= tolerance(format).shrink)
        let rows = batch.shrinks.flatMap { segment in
            (0..<segment.rowCount).map { row in
                var part = segment
                part.rowStart += row
                part.rowCount = 1
                part.vOffset += row * segment.rank
                return part
            }
        }
        #expect(bits(batch.shrink(rows, pool: pool)) == bits(v))
    }

    @Test(arguments: OperandFormat.allCases)
    func zerosStayZeros(format: OperandFormat) {
        var generator = SeededGenerator(seed: 36)
        let batch = Batch(
            rowCounts: [3], ranks: [5], inFeatures: 40, outFeatures: 20, format: format,
            generator: &generator)
        let pool = Machine.pool(Kernels.level)
        let zeros = [Float](repeating: 0, count: batch.vCount)
        #expect(bits(batch.expand(zeros, pool: pool)) == bits(batch.y))
    }

    @Test func oneShrinkServesSeveralTargets() {
        let pool = Machine.pool(Kernels.level)
        // v of two rows, rank 3: the first target uses ranks 0 and 1, the second rank 2.
        let v: [Float] = [1, 2, 3, 4, 5, 6]
        // B of one output and rank 2, and of two outputs and rank 1.
        let first = AlignedBuffer<UInt8>(
            count: ExpandFactor.byteCount(rank: 2, outFeatures: 1, format: .f32))
        let second = AlignedBuffer<UInt8>(
            count: ExpandFactor.byteCount(rank: 1, outFeatures: 2, format: .f32))
        ExpandFactor.pack([1, 10], rank: 2, outFeatures: 1, format: .f32, to: first.pointer)
        ExpandFactor.pack([100, 1000], rank: 1, outFeatures: 2, format: .f32, to: second.pointer)
        var y = [Float](repeating: 0, count: 6)
        segmentedExpand(
            v,
            segments: [
                ExpandSegment(
                    rowStart: 0, rowCount: 2, b: first.pointer, rank: 2, format: .f32, vOffset: 0,
                    vStride: 3, outStart: 0, outFeatures: 1, scale: 1),
                ExpandSegment(
                    rowStart: 0, rowCount: 2, b: second.pointer, rank: 1, format: .f32, vOffset: 2,
                    vStride: 3, outStart: 1, outFeatures: 2, scale: 2),
            ], y: &y, yStride: 3, pool: pool)
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
