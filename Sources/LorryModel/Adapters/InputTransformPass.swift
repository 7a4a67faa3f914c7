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
    private var outputs = AlignedBuffer<Float>(count: 1 << 12)
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

    /// - Parameters:
    ///   - x: `[rows, width]`
    ///   - yStride: of the matmul's output.
    func run(_ x: UnsafeMutablePointer<Float>, width: Int, yStride: Int) {
        guard !segments.isEmpty else { return }
        let rowCount = segments.reduce(0) { $0 + $1.1.rows.count }
        Self.reserve(&inputs, rowCount * width)
        Self.reserve(&scratch, rowCount * width)
        Self.reserve(&outputs, rowCount * yStride)
        // Equal columns side by side, so that their rows read the weights together.
        segments.sort { $0.transform.columns.lowerBound < $1.transform.columns.lowerBound }
        var done = 0
        for (transform, segment) in segments {
            let source = x + segment.rows.lowerBound * width
            let target =
                transform.isOfWholeGroup ? source : inputs.pointer + done * width
            transforms.append(
                InputTransform(
                    source: source, target: target, rowCount: segment.rows.count,
                    steps: transform.steps.map { InputTransformStep($0, of: segment.program) }))
            guard !transform.isOfWholeGroup else { continue }
            rerun(transform.columns, segment.rows, target, outputs.pointer + done * yStride)
            done += segment.rows.count
        }
        transformInputs(transforms, width: width, scratch: scratch.pointer, pool: pool)
    }

    private func rerun(
        _ columns: Range<Int>, _ rows: Range<Int>, _ x: UnsafeMutablePointer<Float>,
        _ y: UnsafeMutablePointer<Float>
    ) {
        if reruns.last?.columns == columns {
            reruns[reruns.count - 1].rows.append(rows)
        } else {
            reruns.append(MatmulRerun(columns: columns, rows: [rows], x: x, y: y))
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
        case .blocks(let offset, let format, let blockSize, let count, let isShared):
            self = .blocks(
                program.operand(at: offset), format: format, blockSize: blockSize, count: count,
                isShared: isShared)
        }
    }
}
