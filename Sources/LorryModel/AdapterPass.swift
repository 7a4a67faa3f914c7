import LorryTensor

/// Applies the adapter programs of a batch around the base's matmuls, segment by segment.
///
/// Prepared once a step; then, for each group of linear layers, `transformInput` before the base's
/// matmul and `adjustOutput` after it. Works on the rows of segments only. The lists of operations
/// keep their memory from group to group and from step to step.
final class AdapterPass {
    private let configuration: ModelConfiguration
    private let pool: WorkerPool
    private var segments: [ForwardBatch.Segment] = []
    private var inputScales: [VectorSegment] = []
    private var deltas: [DeltaSegment] = []
    private var expands: [ExpandSegment] = []
    private var outputScales: [VectorSegment] = []
    private var biases: [VectorSegment] = []
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
        inputScales.removeAll(keepingCapacity: true)
        for segment in segments {
            guard let operations = segment.program.groups[layer][group.rawValue],
                let scale = operations.inputScale
            else { continue }
            inputScales.append(VectorSegment(scale, of: segment))
        }
        guard !inputScales.isEmpty else { return }
        segmentedScale(
            x, yStride: configuration.inFeatures(of: group), segments: inputScales, pool: pool)
    }

    /// Operations 2 to 4: y ← g ⊙ (y + s · B (A x)) + c.
    func adjustOutput(
        layer: Int, group: LinearGroup, input: UnsafePointer<Float>,
        output: UnsafeMutablePointer<Float>
    ) {
        guard !segments.isEmpty else { return }
        let shrunkCount = collect(layer, group)
        let stride = configuration.outFeatures(of: group)
        if !deltas.isEmpty {
            if shrunkCount > shrunk.count { shrunk = AlignedBuffer(count: 2 * shrunkCount) }
            let inFeatures = configuration.inFeatures(of: group)
            segmentedDelta(
                input, xStride: inFeatures, inFeatures: inFeatures, deltas: deltas,
                expands: expands, v: shrunk.pointer, y: output, yStride: stride, pool: pool)
        }
        if !outputScales.isEmpty {
            segmentedScale(output, yStride: stride, segments: outputScales, pool: pool)
        }
        if !biases.isEmpty {
            segmentedAdd(output, yStride: stride, segments: biases, pool: pool)
        }
    }

    /// Lists the group's operations of all segments; returns the floats that the shrinks write.
    private func collect(_ layer: Int, _ group: LinearGroup) -> Int {
        deltas.removeAll(keepingCapacity: true)
        expands.removeAll(keepingCapacity: true)
        outputScales.removeAll(keepingCapacity: true)
        biases.removeAll(keepingCapacity: true)
        var shrunkCount = 0
        for segment in segments {
            guard let operations = segment.program.groups[layer][group.rawValue] else { continue }
            if operations.shrinkRank > 0 {
                let first = expands.count
                for expand in operations.expands {
                    expands.append(
                        ExpandSegment(
                            expand, of: segment, vOffset: shrunkCount + expand.rankStart,
                            vStride: operations.shrinkRank))
                }
                deltas.append(
                    DeltaSegment(
                        shrink: ShrinkSegment(operations, of: segment, vOffset: shrunkCount),
                        expands: first..<expands.count))
                shrunkCount += segment.rows.count * operations.shrinkRank
            }
            for scale in operations.outputScales {
                outputScales.append(VectorSegment(scale, of: segment))
            }
            for bias in operations.biases { biases.append(VectorSegment(bias, of: segment)) }
        }
        return shrunkCount
    }
}

extension ShrinkSegment {
    fileprivate init(_ group: GroupProgram, of segment: ForwardBatch.Segment, vOffset: Int) {
        self.init(
            rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
            a: segment.program.operand(at: group.shrinkOffset),
            rank: group.shrinkRank, format: segment.program.format, vOffset: vOffset)
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
