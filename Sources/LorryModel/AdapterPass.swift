import LorryTensor

/// Applies the adapter programs of a batch around the base's matmuls, segment by segment.
///
/// Prepared once a step; then, for each group of linear layers, `transformInput` before the base's
/// matmul and `adjustOutput` after it. Works on the rows of segments only.
final class AdapterPass {
    private let configuration: ModelConfiguration
    private let pool: WorkerPool
    private var segments: [ForwardBatch.Segment] = []
    /// Results of the shrinks of one group: each segment's `[rows, shrinkRank]`, one after another.
    private var shrunk = AlignedBuffer<Float>(count: 1 << 14)

    init(configuration: ModelConfiguration, pool: WorkerPool) {
        self.configuration = configuration
        self.pool = pool
    }

    func prepare(_ segments: [ForwardBatch.Segment]) {
        self.segments = segments
    }

    /// Operation 1: x ← l ⊙ x.
    func transformInput(layer: Int, group: LinearGroup, _ x: UnsafeMutablePointer<Float>) {
        let scales = vectors(layer, group) { $0.inputScale.map { [$0] } ?? [] }
        guard !scales.isEmpty else { return }
        segmentedScale(
            x, yStride: configuration.inFeatures(of: group), segments: scales, pool: pool)
    }

    /// Operations 2 to 4: y ← g ⊙ (y + s · B (A x)) + c.
    func adjustOutput(
        layer: Int, group: LinearGroup, input: UnsafePointer<Float>,
        output: UnsafeMutablePointer<Float>
    ) {
        guard !segments.isEmpty else { return }
        let stride = configuration.outFeatures(of: group)
        addDeltas(layer, group, input, output, stride: stride)
        let scales = vectors(layer, group) { $0.outputScales }
        if !scales.isEmpty {
            segmentedScale(output, yStride: stride, segments: scales, pool: pool)
        }
        let biases = vectors(layer, group) { $0.biases }
        if !biases.isEmpty {
            segmentedAdd(output, yStride: stride, segments: biases, pool: pool)
        }
    }

    private func addDeltas(
        _ layer: Int, _ group: LinearGroup, _ input: UnsafePointer<Float>,
        _ output: UnsafeMutablePointer<Float>, stride: Int
    ) {
        var shrinks: [ShrinkSegment] = []
        var expands: [ExpandSegment] = []
        var shrunkCount = 0
        for segment in segments {
            let program = segment.program
            guard let operations = program.groups[layer][group.rawValue],
                operations.shrinkRank > 0
            else { continue }
            shrinks.append(
                ShrinkSegment(
                    rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
                    a: UnsafeRawPointer(program.operands.pointer(at: operations.shrinkOffset)),
                    rank: operations.shrinkRank, format: program.format, vOffset: shrunkCount))
            for expand in operations.expands {
                expands.append(
                    ExpandSegment(
                        rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
                        b: UnsafeRawPointer(program.operands.pointer(at: expand.offset)),
                        rank: expand.rank, format: program.format,
                        vOffset: shrunkCount + expand.rankStart, vStride: operations.shrinkRank,
                        outStart: expand.columnStart, outFeatures: expand.outFeatures,
                        scale: expand.scale))
            }
            shrunkCount += segment.rows.count * operations.shrinkRank
        }
        guard !shrinks.isEmpty else { return }
        if shrunkCount > shrunk.count { shrunk = AlignedBuffer(count: 2 * shrunkCount) }
        let inFeatures = configuration.inFeatures(of: group)
        segmentedShrink(
            input, xStride: inFeatures, inFeatures: inFeatures, segments: shrinks,
            v: shrunk.pointer, pool: pool)
        segmentedExpand(
            shrunk.pointer, segments: expands, y: output, yStride: stride, pool: pool)
    }

    private func vectors(
        _ layer: Int, _ group: LinearGroup, _ select: (GroupProgram) -> [GroupProgram.Vector]
    ) -> [VectorSegment] {
        segments.flatMap { segment -> [VectorSegment] in
            guard let operations = segment.program.groups[layer][group.rawValue] else { return [] }
            return select(operations).map { vector in
                let address = segment.program.operands.pointer(at: vector.offset)
                return VectorSegment(
                    rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
                    vector: UnsafePointer(address.assumingMemoryBound(to: Float.self)),
                    start: vector.columnStart, count: vector.count)
            }
        }
    }
}
