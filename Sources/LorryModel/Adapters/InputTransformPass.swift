import LorryTensor

/// What the adapters of a batch do to the inputs of one group of linear layers.
///
/// A transform of all of a group's inputs changes them in place. One of a single layer's inputs
/// leaves the others' as they are: the rows are copied and changed, and that layer's columns are
/// computed anew from them, for all such rows of the batch in one matmul.
final class InputTransformPass {
    private struct Transform {
        var rows: Range<Int>
        var columns: Range<Int>
        var steps: [InputTransformStep]
    }

    private let pool: WorkerPool
    private var inPlace: [Transform] = []
    private var rerouted: [Transform] = []
    private var inputs = AlignedBuffer<Float>(count: 1 << 12)
    private var outputs = AlignedBuffer<Float>(count: 1 << 12)
    private var scratch = AlignedBuffer<Float>(count: 1 << 12)

    init(pool: WorkerPool) { self.pool = pool }

    func clear() {
        inPlace.removeAll(keepingCapacity: true)
        rerouted.removeAll(keepingCapacity: true)
    }

    func append(_ group: GroupProgram, of segment: ForwardBatch.Segment) {
        for transform in group.inputTransforms {
            let placed = Transform(
                rows: segment.rows, columns: transform.columns,
                steps: transform.steps.map { InputTransformStep($0, of: segment.program) })
            if transform.isOfWholeGroup {
                inPlace.append(placed)
            } else {
                rerouted.append(placed)
            }
        }
    }

    /// - Parameter x: rows of `stride` inputs.
    func changeInputs(_ x: UnsafeMutablePointer<Float>, stride: Int) {
        for transform in inPlace {
            apply(transform, x + transform.rows.lowerBound * stride, width: stride)
        }
    }

    private func apply(_ transform: Transform, _ x: UnsafeMutablePointer<Float>, width: Int) {
        Self.reserve(&scratch, transform.rows.count * width)
        transformRows(
            x, stride: width, rowCount: transform.rows.count, width: width,
            steps: transform.steps, scratch: scratch.pointer, pool: pool)
    }

    /// Computes the columns anew whose inputs are changed.
    ///
    /// - Parameters:
    ///   - x: `[rows, weights.inFeatures]`
    ///   - y: `[rows, weights.outFeatures]`, as the batch's matmul left it.
    func rerunColumns(
        of x: UnsafePointer<Float>, to y: UnsafeMutablePointer<Float>, weights: PackedMatrix,
        bias: [Float]?
    ) {
        guard !rerouted.isEmpty else { return }
        // Layers of one group lie side by side, so equal first columns are equal layers.
        rerouted.sort { $0.columns.lowerBound < $1.columns.lowerBound }
        var start = 0
        while start < rerouted.count {
            let columns = rerouted[start].columns
            var end = start
            while end < rerouted.count, rerouted[end].columns == columns { end += 1 }
            rerun(start..<end, columns, of: x, to: y, weights: weights, bias: bias)
            start = end
        }
    }

    private func rerun(
        _ indices: Range<Int>, _ columns: Range<Int>, of x: UnsafePointer<Float>,
        to y: UnsafeMutablePointer<Float>, weights: PackedMatrix, bias: [Float]?
    ) {
        let (inFeatures, outFeatures) = (weights.inFeatures, weights.outFeatures)
        let rowCount = indices.reduce(0) { $0 + rerouted[$1].rows.count }
        Self.reserve(&inputs, rowCount * inFeatures)
        Self.reserve(&outputs, rowCount * outFeatures)
        var first = 0
        for index in indices {
            let transform = rerouted[index]
            let target = inputs.pointer + first * inFeatures
            target.update(
                from: x + transform.rows.lowerBound * inFeatures,
                count: transform.rows.count * inFeatures)
            apply(transform, target, width: inFeatures)
            first += transform.rows.count
        }
        matmul(
            inputs.pointer, xStride: inFeatures, rowCount: rowCount, weights: weights, bias: bias,
            y: outputs.pointer, yStride: outFeatures, columns: columns, pool: pool)
        first = 0
        for index in indices {
            for row in rerouted[index].rows {
                (y + row * outFeatures + columns.lowerBound).update(
                    from: outputs.pointer + first * outFeatures + columns.lowerBound,
                    count: columns.count)
                first += 1
            }
        }
    }

    private static func reserve(_ buffer: inout AlignedBuffer<Float>, _ count: Int) {
        if buffer.count < count { buffer = AlignedBuffer(count: count + count / 2) }
    }
}

extension InputTransformStep {
    fileprivate init(
        _ step: GroupProgram.InputTransform.Step, of program: AdapterProgram
    ) {
        switch step {
        case .scale(let offset): self = .scale(program.floats(at: offset))
        case .gather(let offset): self = .gather(program.indices(at: offset))
        case .blocks(let offset, let blockSize, let count, let isShared):
            self = .blocks(
                program.floats(at: offset), blockSize: blockSize, count: count, isShared: isShared)
        }
    }
}
