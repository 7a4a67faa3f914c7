import LorryTensor

/// Applies the adapter programs of a batch around the base's matmuls, segment by segment.
///
/// Prepared once a step; then, for each group of linear layers, `begin` before the base's matmul,
/// which takes `adjustments`, and `finish` after it. Works on the rows of segments only. The lists of
/// operations keep their memory from group to group and from step to step.
final class AdapterPass {
    private let configuration: ModelConfiguration
    private let pool: WorkerPool
    private var segments: [ForwardBatch.Segment] = []
    private var inputScales: [VectorSegment] = []
    /// Operations 2 to 4: y ← g ⊙ (y + s · B (A x)) + c.
    let adjustments = OutputAdjustments()

    init(configuration: ModelConfiguration, pool: WorkerPool) {
        self.configuration = configuration
        self.pool = pool
    }

    func prepare(_ segments: [ForwardBatch.Segment]) {
        self.segments = segments
        adjustments.clear()
    }

    /// Operation 1, x ← l ⊙ x, and what of the others can be done before y is known.
    func begin(layer: Int, group: LinearGroup, _ x: UnsafeMutablePointer<Float>) {
        guard !segments.isEmpty else { return }
        collect(layer, group)
        let inFeatures = configuration.inFeatures(of: group)
        if !inputScales.isEmpty {
            segmentedScale(x, yStride: inFeatures, segments: inputScales, pool: pool)
        }
        adjustments.begin(
            x, xStride: inFeatures, inFeatures: inFeatures,
            yStride: configuration.outFeatures(of: group), pool: pool)
    }

    /// What is left to do after the matmul.
    func finish(
        layer: Int, group: LinearGroup, input: UnsafePointer<Float>,
        output: UnsafeMutablePointer<Float>
    ) {
        guard !segments.isEmpty else { return }
        let inFeatures = configuration.inFeatures(of: group)
        adjustments.finish(
            input, xStride: inFeatures, inFeatures: inFeatures, y: output,
            yStride: configuration.outFeatures(of: group), pool: pool)
    }

    /// Lists the group's operations of all segments.
    private func collect(_ layer: Int, _ group: LinearGroup) {
        inputScales.removeAll(keepingCapacity: true)
        adjustments.clear()
        for segment in segments {
            guard let operations = segment.program.groups[layer][group.rawValue] else { continue }
            if let scale = operations.inputScale {
                inputScales.append(VectorSegment(scale, of: segment))
            }
            adjustments.appendSegment(rowCount: segment.rows.count)
            if operations.shrinkRank > 0 {
                let vOffset = adjustments.append(
                    ShrinkSegment(operations, of: segment), elementCount: operations.elementCount)
                for expand in operations.expands {
                    adjustments.append(
                        ExpandSegment(
                            expand, of: segment, vOffset: vOffset + expand.rankStart,
                            vStride: operations.shrinkRank))
                }
            }
            for scale in operations.outputScales {
                adjustments.appendScale(VectorSegment(scale, of: segment))
            }
            for bias in operations.biases {
                adjustments.appendBias(VectorSegment(bias, of: segment))
            }
        }
    }
}

extension ShrinkSegment {
    fileprivate init(_ group: GroupProgram, of segment: ForwardBatch.Segment) {
        self.init(
            rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
            a: segment.program.operand(at: group.shrinkOffset),
            rank: group.shrinkRank, format: segment.program.format, vOffset: 0)
    }
}

extension ExpandSegment {
    fileprivate init(
        _ expand: GroupProgram.Expand, of segment: ForwardBatch.Segment, vOffset: Int, vStride: Int
    ) {
        self.init(
            rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
            b: segment.program.operand(at: expand.offset),
            rank: expand.rank, format: segment.program.format, vOffset: vOffset, vStride: vStride,
            outStart: expand.columnStart, outFeatures: expand.outFeatures, scale: expand.scale)
    }
}

extension VectorSegment {
    fileprivate init(_ vector: GroupProgram.Vector, of segment: ForwardBatch.Segment) {
        let address = segment.program.operand(at: vector.offset)
        self.init(
            rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
            vector: address.assumingMemoryBound(to: Float.self),
            start: vector.columnStart, count: vector.count)
    }
}
