import LorryTensor
import Testing

/// A base matmul over rows whose adapters have some of the four parts each.
private final class AdjustedBatch {
    /// Outputs of two targets that lie side by side, the second at `secondStart`.
    let secondStart: Int
    let inFeatures = 96
    let outFeatures: Int
    let rowCount: Int
    let x: [Float]
    let bias: [Float]
    let matrix: PackedMatrix
    private var segments: [Segment] = []
    private var storage: [AlignedBuffer<UInt8>] = []

    /// One adapter's rows and parts; of a part that is absent the list is empty.
    private struct Segment {
        var rows: Range<Int>
        var shrink: ShrinkSegment?
        var expands: [ExpandSegment] = []
        var scales: [VectorSegment] = []
        var biases: [VectorSegment] = []
        var elementCount = 0
    }

    init(
        rowCounts: [Int], secondStart: Int, format: OperandFormat, pool: WorkerPool,
        generator: inout SeededGenerator
    ) throws {
        self.secondStart = secondStart
        outFeatures = secondStart + 531
        // One row before and one after belong to no segment.
        rowCount = rowCounts.reduce(2, +)
        x = generator.floats(rowCount * inFeatures)
        bias = generator.floats(outFeatures)
        matrix = try packed(
            generator.floats(outFeatures * inFeatures), outFeatures: outFeatures,
            inFeatures: inFeatures, format: .f32, pool: pool)
        var row = 1
        for (index, count) in rowCounts.enumerated() {
            segments.append(
                makeSegment(
                    row..<row + count, hasDelta: index % 4 != 3, hasScale: index % 3 == 1,
                    hasBias: index % 5 > 1, format, &generator))
            row += count
        }
    }

    private func makeSegment(
        _ rows: Range<Int>, hasDelta: Bool, hasScale: Bool, hasBias: Bool,
        _ format: OperandFormat, _ generator: inout SeededGenerator
    ) -> Segment {
        var segment = Segment(rows: rows)
        let ranks = [16, 5]
        let starts = [0, secondStart]
        let widths = [secondStart, outFeatures - secondStart]
        if hasDelta {
            let rank = ranks[0] + ranks[1]
            let a = store(
                byteCount: ShrinkFactor.byteCount(
                    rank: rank, inFeatures: inFeatures, format: format))
            ShrinkFactor.pack(
                generator.floats(rank * inFeatures), rank: rank, inFeatures: inFeatures,
                format: format, to: a)
            segment.shrink = ShrinkSegment(
                rowStart: rows.lowerBound, rowCount: rows.count, a: a, rank: rank, format: format,
                vOffset: 0)
            for target in 0..<2 {
                let b = store(
                    byteCount: ExpandFactor.byteCount(
                        rank: ranks[target], outFeatures: widths[target], format: format))
                ExpandFactor.pack(
                    generator.floats(ranks[target] * widths[target]), rank: ranks[target],
                    outFeatures: widths[target], format: format, to: b)
                segment.expands.append(
                    ExpandSegment(
                        rowStart: rows.lowerBound, rowCount: rows.count, b: b,
                        rank: ranks[target], format: format, vOffset: target * ranks[0],
                        vStride: rank, outStart: starts[target], outFeatures: widths[target],
                        scale: 0.75))
                segment.elementCount += ranks[target] * (inFeatures + widths[target])
            }
        }
        if hasScale {
            segment.scales = [vector(rows, start: secondStart, count: widths[1], &generator)]
        }
        if hasBias {
            segment.biases = [vector(rows, start: 0, count: widths[0], &generator)]
        }
        return segment
    }

    private func vector(
        _ rows: Range<Int>, start: Int, count: Int, _ generator: inout SeededGenerator
    ) -> VectorSegment {
        let address = store(byteCount: count * MemoryLayout<Float>.size)
            .assumingMemoryBound(to: Float.self)
        address.update(from: generator.floats(count), count: count)
        return VectorSegment(
            rowStart: rows.lowerBound, rowCount: rows.count, vector: address, start: start,
            count: count)
    }

    private func store(byteCount: Int) -> UnsafeMutableRawPointer {
        let buffer = AlignedBuffer<UInt8>(count: byteCount)
        storage.append(buffer)
        return UnsafeMutableRawPointer(buffer.pointer)
    }

    /// The base alone, then one operator after the other.
    func inTurn(pool: WorkerPool) -> [Float] {
        var y = [Float](repeating: .nan, count: rowCount * outFeatures)
        matmul(
            x, xStride: inFeatures, rowCount: rowCount, weights: matrix, bias: bias, y: &y,
            yStride: outFeatures, pool: pool)
        for segment in segments {
            if let shrink = segment.shrink {
                var v = [Float](repeating: .nan, count: shrink.rowCount * shrink.rank)
                segmentedShrink(
                    x, xStride: inFeatures, inFeatures: inFeatures, segments: [shrink], v: &v,
                    pool: pool)
                segmentedExpand(
                    v, segments: segment.expands, y: &y, yStride: outFeatures, pool: pool)
            }
            segmentedScale(&y, yStride: outFeatures, segments: segment.scales, pool: pool)
            segmentedAdd(&y, yStride: outFeatures, segments: segment.biases, pool: pool)
        }
        return y
    }

    /// As a forward pass does it.
    func together(_ adjustments: OutputAdjustments, pool: WorkerPool) -> [Float] {
        var y = [Float](repeating: .nan, count: rowCount * outFeatures)
        adjustments.fill { parts in
            for segment in segments {
                parts.appendSegment(rows: segment.rows)
                if let shrink = segment.shrink {
                    let vOffset = parts.append(shrink, elementCount: segment.elementCount)
                    for var expand in segment.expands {
                        expand.vOffset += vOffset
                        parts.append(expand)
                    }
                }
                for scale in segment.scales { parts.appendScale(scale) }
                for bias in segment.biases { parts.appendBias(bias) }
            }
        }
        adjustments.begin(
            x, xStride: inFeatures, inFeatures: inFeatures, yStride: outFeatures, pool: pool)
        matmul(
            x, xStride: inFeatures, rowCount: rowCount, weights: matrix, bias: bias, y: &y,
            yStride: outFeatures, then: adjustments, pool: pool)
        adjustments.finish(
            x, xStride: inFeatures, inFeatures: inFeatures, y: &y, yStride: outFeatures, pool: pool)
        return y
    }
}

@Suite struct OutputAdjustmentsTests {
    /// Small segments only, large ones only, both, and none with a delta; the second target starts on
    /// a panel of the base's columns or within one.
    static let rowCounts: [[Int]] = [
        Array(repeating: 1, count: 32), [80], [1, 7, 0, 130, 3, 2, 1], [0, 0, 0, 5], [1],
    ]

    @Test(arguments: Machine.levels, OperandFormat.allCases)
    func togetherIsAsInTurn(level: KernelLevel, format: OperandFormat) throws {
        var generator = SeededGenerator(seed: 91)
        // Kept from case to case, as from layer to layer.
        let adjustments = OutputAdjustments()
        for secondStart in [480, 203] {
            for rowCounts in Self.rowCounts {
                let alone = Machine.pool(level)
                let batch = try AdjustedBatch(
                    rowCounts: rowCounts, secondStart: secondStart, format: format, pool: alone,
                    generator: &generator)
                let expected = bits(batch.inTurn(pool: alone))
                for threads in 1...3 {
                    let pool = Machine.pool(level, threads: threads)
                    #expect(
                        bits(batch.together(adjustments, pool: pool)) == expected,
                        "\(rowCounts), second target at \(secondStart), \(threads) threads")
                }
            }
        }
    }

    @Test func rowsWithoutAdaptersStayTheBase() throws {
        var generator = SeededGenerator(seed: 92)
        let pool = Machine.pool(.portable, threads: 2)
        let batch = try AdjustedBatch(
            rowCounts: [40], secondStart: 480, format: .f32, pool: pool, generator: &generator)
        let bare = try AdjustedBatch(
            rowCounts: [], secondStart: 480, format: .f32, pool: pool, generator: &generator)
        #expect(bare.rowCount == 2)
        let adjusted = batch.together(OutputAdjustments(), pool: pool)
        var base = [Float](repeating: .nan, count: batch.rowCount * batch.outFeatures)
        matmul(
            batch.x, xStride: batch.inFeatures, rowCount: batch.rowCount, weights: batch.matrix,
            bias: batch.bias, y: &base, yStride: batch.outFeatures, pool: pool)
        let width = batch.outFeatures
        #expect(bits(Array(adjusted[..<width])) == bits(Array(base[..<width])))
        #expect(bits(Array(adjusted.suffix(width))) == bits(Array(base.suffix(width))))
        #expect(bits(Array(adjusted[width..<2 * width])) != bits(Array(base[width..<2 * width])))
    }
}
