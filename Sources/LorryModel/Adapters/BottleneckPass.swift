import LorryTensor

/// Applies the bottlenecks of a batch's adapters to the output h of a sublayer, before it is added
/// to the residual stream r:
///
///     h ← h + s · (up · f(down · x + b₁) + b₂),  x = h, r or h + r
///
/// All segments take each step together, each with its own rank. A row's bits depend on its own
/// numbers only.
final class BottleneckPass {
    private let width: Int
    private let pool: WorkerPool
    private var found: [(BottleneckProgram, ForwardBatch.Segment, vOffset: Int)] = []
    private var v = AlignedBuffer<Float>(count: 1 << 10)
    private var sums = AlignedBuffer<Float>(count: 1 << 10)

    init(width: Int, pool: WorkerPool) {
        self.width = width
        self.pool = pool
    }

    /// - Parameters:
    ///   - output: h, `[rows, width]`, changed in place.
    ///   - residual: r, `[rows, width]`.
    func run(
        _ place: BottleneckPlace, _ segments: [ForwardBatch.Segment],
        output: UnsafeMutablePointer<Float>, residual: UnsafePointer<Float>
    ) {
        found.removeAll(keepingCapacity: true)
        defer { found.removeAll(keepingCapacity: true) }
        var vCount = 0
        for segment in segments {
            guard let program = segment.program.operations.bottlenecks[place] else { continue }
            found.append((program, segment, vCount))
            vCount += segment.rows.count * program.rank
        }
        guard !found.isEmpty else { return }
        if v.count < vCount { v = AlignedBuffer(count: 2 * vCount) }
        shrink(.output, output)
        shrink(.residual, residual)
        shrink(.sum, addSums(output, residual))
        segmentedActivate(
            v.pointer,
            segments: found.map { program, segment, vOffset in
                ActivationSegment(
                    rowCount: segment.rows.count, rank: program.rank, vOffset: vOffset,
                    bias: segment.program.floats(at: program.downBias),
                    activation: program.activation)
            }, pool: pool)
        // The parts of one matrix add to the same outputs, one after the other.
        for part in 0..<(found.map(\.0.up.count).max() ?? 0) {
            segmentedExpand(
                v.pointer,
                segments: found.compactMap { program, segment, vOffset in
                    guard program.up.indices.contains(part) else { return nil }
                    return ExpandSegment(
                        program.up[part], of: segment,
                        vOffset: vOffset + program.up[part].rankStart, vStride: program.rank)
                }, y: output, yStride: width, pool: pool)
        }
        segmentedAdd(
            output, yStride: width,
            segments: found.map { program, segment, _ in
                VectorSegment(
                    rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
                    vector: segment.program.floats(at: program.upBias), start: 0, count: width)
            }, pool: pool)
    }

    private func shrink(_ input: BottleneckInput, _ x: UnsafePointer<Float>) {
        let segments = found.filter { $0.0.input == input }.map { program, segment, vOffset in
            ShrinkSegment(
                rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
                a: segment.program.operand(at: program.down), rank: program.rank,
                format: segment.program.format, vOffset: vOffset)
        }
        guard !segments.isEmpty else { return }
        segmentedShrink(
            x, xStride: width, inFeatures: width, segments: segments, v: v.pointer, pool: pool)
    }

    /// h + r of the rows that want it, in the rows' own places.
    private func addSums(
        _ output: UnsafePointer<Float>, _ residual: UnsafePointer<Float>
    ) -> UnsafePointer<Float> {
        let segments = found.filter { $0.0.input == .sum }.map(\.1)
        let rowCount = segments.map(\.rows.upperBound).max() ?? 0
        if sums.count < rowCount * width { sums = AlignedBuffer(count: 2 * rowCount * width) }
        for segment in segments {
            let start = segment.rows.lowerBound * width
            let target = sums.pointer + start
            target.update(from: residual + start, count: segment.rows.count * width)
            addInPlace(
                target, yStride: width, output + start, xStride: width,
                rowCount: segment.rows.count, width: width, pool: pool)
        }
        return UnsafePointer(sums.pointer)
    }
}
