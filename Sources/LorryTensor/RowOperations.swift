import CKernels

// Deltas, mixes and transforms of rows whose matrices have a structure. Their operands are in single
// precision in memory that outlives them; each takes one row at a time, so its bits depend on that
// row only.

/// A matrix `[outFeatures, inFeatures]` that is added without being laid out: `y ← y + D x`.
public enum StructuredDelta {
    /// Row o of D has `values[starts[o]..<starts[o + 1]]` at `columns`.
    case sparse(
        starts: UnsafePointer<UInt32>, columns: UnsafePointer<UInt32>, values: UnsafePointer<Float>,
        outFeatures: Int)
    /// `scale · left ⊗ right`, with left `[leftOut, leftIn]` and the transpose of right.
    case kronecker(
        left: UnsafePointer<Float>, right: UnsafePointer<Float>, KroneckerShape, scale: Float)
    /// Blocks `[outBlocks, inBlocks]`, each the circulant matrix whose first column is its kernel;
    /// kernels are `[outBlocks, inBlocks, 2 · blockSize]`, each twice in a row.
    case circulant(kernels: UnsafePointer<Float>, blockSize: Int, outBlocks: Int, inBlocks: Int)

    func add(
        _ x: UnsafePointer<Float>, to y: UnsafeMutablePointer<Float>,
        kernels table: UnsafePointer<ck_table>
    ) {
        switch self {
        case .sparse(let starts, let columns, let values, let outFeatures):
            var matrix = ck_sparse(
                starts: starts, columns: columns, values: values, out_features: outFeatures)
            table.pointee.sparse_add(&matrix, x, y)
        case .kronecker(let left, let right, let shape, let scale):
            var matrix = ck_kronecker(
                left: left, right: right, left_out: shape.leftOut, left_in: shape.leftIn,
                right_out: shape.rightOut, right_in: shape.rightIn, scale: scale)
            table.pointee.kronecker_add(&matrix, x, y)
        case .circulant(let kernels, let blockSize, let outBlocks, let inBlocks):
            var matrix = ck_circulant(
                kernels: kernels, block_size: blockSize, out_blocks: outBlocks,
                in_blocks: inBlocks)
            table.pointee.circulant_add(&matrix, x, y)
        }
    }
}

/// The factors of a Kronecker product.
public struct KroneckerShape: Sendable, Equatable {
    public var leftOut: Int
    public var leftIn: Int
    public var rightOut: Int
    public var rightIn: Int

    public init(leftOut: Int, leftIn: Int, rightOut: Int, rightIn: Int) {
        self.leftOut = leftOut
        self.leftIn = leftIn
        self.rightOut = rightOut
        self.rightIn = rightIn
    }
}

/// Mixes the two halves of each group of outputs: `y ← own ⊙ y + other ⊙ (the other half's y)`.
public struct PairMix {
    /// `[count]`
    public var own: UnsafePointer<Float>
    /// `[count]`
    public var other: UnsafePointer<Float>
    public var count: Int
    /// Divides `count`.
    public var groupSize: Int

    public init(
        own: UnsafePointer<Float>, other: UnsafePointer<Float>, count: Int, groupSize: Int
    ) {
        precondition(groupSize > 0 && groupSize % 2 == 0 && count % groupSize == 0)
        self.own = own
        self.other = other
        self.count = count
        self.groupSize = groupSize
    }

    func apply(_ y: UnsafeMutablePointer<Float>, kernels: UnsafePointer<ck_table>) {
        var mix = ck_pair_mix(own: own, other: other, count: count, group_size: groupSize)
        kernels.pointee.mix_pairs(&mix, y)
    }
}

/// One step of what an adapter does to the input of a linear layer.
public enum InputTransformStep {
    /// `x ← l ⊙ x`
    case scale(UnsafePointer<Float>)
    /// `x[i] ← x[indices[i]]`
    case gather(UnsafePointer<UInt32>)
    /// `x ← x + x · diag(M)`, with `[count or 1, blockSize, blockSize]` matrices in f32 or bf16.
    case blocks(
        UnsafeRawPointer, format: OperandFormat, blockSize: Int, count: Int, isShared: Bool)
}

/// Rows of inputs and what an adapter does to them.
public struct InputTransform {
    /// `[rowCount, width]`, one row after the other.
    public var source: UnsafePointer<Float>
    /// Where the results go; may be the source.
    public var target: UnsafeMutablePointer<Float>
    public var rowCount: Int
    public var steps: [InputTransformStep]

    public init(
        source: UnsafePointer<Float>, target: UnsafeMutablePointer<Float>, rowCount: Int,
        steps: [InputTransformStep]
    ) {
        self.source = source
        self.target = target
        self.rowCount = rowCount
        self.steps = steps
    }

    fileprivate func apply(
        _ row: Int, width: Int, scratch: UnsafeMutablePointer<Float>,
        kernels: UnsafePointer<ck_table>
    ) {
        let x = target + row * width
        if source != UnsafePointer(target) { x.update(from: source + row * width, count: width) }
        for step in steps {
            switch step {
            case .scale(let vector): kernels.pointee.multiply(x, vector, width)
            case .gather(let indices):
                scratch.update(from: x, count: width)
                for column in 0..<width { x[column] = scratch[Int(indices[column])] }
            case .blocks(let matrices, let format, let blockSize, let count, let isShared):
                precondition(format != .int8, "blocks are held in f32 or bf16")
                precondition(blockSize * count == width, "blocks do not cover the inputs")
                scratch.update(from: x, count: width)
                var blocks = ck_blocks(
                    matrices: matrices, format: format.native, block_size: blockSize, count: count,
                    is_shared: isShared)
                kernels.pointee.rotate_blocks(&blocks, scratch, x)
            }
        }
    }
}

/// Transforms rows of inputs, for adapters that act before a linear layer. No two transforms may
/// share a target.
///
/// - Parameter scratch: room for `width` floats for each row of all transforms.
public func transformInputs(
    _ transforms: [InputTransform], width: Int, scratch: UnsafeMutablePointer<Float>,
    pool: WorkerPool
) {
    let kernels = pool.kernels
    var starts = 0
    let firsts = transforms.map { transform in
        defer { starts += transform.rowCount }
        return starts
    }
    pool.runPieces(groupCount: transforms.count) {
        transforms[$0].rowCount
    } body: { index, row in
        transforms[index].apply(
            row, width: width, scratch: scratch + (firsts[index] + row) * width, kernels: kernels)
    }
}

/// Keys and values of an adapter's own, to which every query of its rows attends beside its
/// context.
public struct PromptAttention {
    /// `[count, kvHeadCount, headDim]`
    public var keys: UnsafePointer<Float>
    public var values: UnsafePointer<Float>
    public var count: Int
    public var gate: Float

    public init(
        keys: UnsafePointer<Float>, values: UnsafePointer<Float>, count: Int, gate: Float
    ) {
        self.keys = keys
        self.values = values
        self.count = count
        self.gate = gate
    }

    /// `out += gate · softmax(q · keysᵀ · scale) · values` for each head of each row.
    ///
    /// - Parameters:
    ///   - q: rows of `[headCount, headDim]`, `qStride` floats apart.
    ///   - out: the same, `outStride` floats apart.
    public func add(
        q: UnsafePointer<Float>, qStride: Int, rowCount: Int, headCount: Int, kvHeadCount: Int,
        headDim: Int, scale: Float, out: UnsafeMutablePointer<Float>, outStride: Int,
        pool: WorkerPool
    ) {
        let kernels = pool.kernels
        var arguments = ck_prompt_attention(
            keys: keys, values: values, count: count, head_count: headCount,
            kv_head_count: kvHeadCount, head_dim: headDim, scale: scale, gate: gate)
        withUnsafePointer(to: &arguments) { arguments in
            pool.run(taskCount: rowCount) { row in
                kernels.pointee.prompt_attention(
                    arguments, q + row * qStride, out + row * outStride)
            }
        }
    }
}
