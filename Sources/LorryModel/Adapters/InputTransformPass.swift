import LorryTensor

/// What the adapters of a batch do to the inputs of one group of linear layers.
///
/// A transform of all of a group's inputs changes them in place. One of a single layer's inputs
/// leaves the others' as they are: the rows are copied and changed, and the matmul computes that
/// layer's columns of these rows from the copies.
final class InputTransformPass {
    private let pool: WorkerPool
    private var segments: [(transform: GroupProgram.InputTransform, ForwardBatch.Segment)] = []
    private var transforms: [InputTransform] = []
    /// Columns of rows that have inputs of their own.
    private(set) var reruns: [MatmulRerun] = []
    private var inputs = AlignedBuffer<Float>(count: 1 << 12)
    private var scratch = AlignedBuffer<Float>(count: 1 << 12)

    init(pool: WorkerPool) { self.pool = pool }

    func clear() {
        segments.removeAll(keepingCapacity: true)
        transforms.removeAll(keepingCapacity: true)
        reruns.removeAll(keepingCapacity: true)
    }

    func append(_ group: GroupProgram, of segment: ForwardBatch.Segment) {
        for transform in group.inputTransforms { segments.append((transform, segment)) }
    }

    /// - Parameter x: `[rows, width]`
    func run(_ x: UnsafeMutablePointer<Float>, width: Int) {
        guard !segments.isEmpty else { return }
        let rowCount = segments.reduce(0) { $0 + $1.1.rows.count }
        if inputs.count < rowCount * width { inputs = AlignedBuffer(count: 2 * rowCount * width) }
        if scratch.count < rowCount * width { scratch = AlignedBuffer(count: 2 * rowCount * width) }
        var next = inputs.pointer
        for (transform, segment) in segments {
            let source = x + segment.rows.lowerBound * width
            let target = transform.isOfWholeGroup ? source : next
            transforms.append(
                InputTransform(
                    source: source, target: target, rowCount: segment.rows.count,
                    steps: transform.steps.map { InputTransformStep($0, of: segment.program) }))
            guard !transform.isOfWholeGroup else { continue }
            reruns.append(
                MatmulRerun(rows: segment.rows, columns: transform.columns, x: target))
            next += segment.rows.count * width
        }
        transformInputs(transforms, width: width, scratch: scratch.pointer, pool: pool)
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
