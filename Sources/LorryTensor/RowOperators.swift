import CKernels

// Row-wise operators. Rows are independent; elements of a row are summed in one fixed order.

/// Floats below which a row operator stays on the calling thread: a fork costs more.
private let smallestShare = 16_384

private func rowsPerTask(_ width: Int) -> Int { max(1, smallestShare / max(1, width)) }

/// `out[row] = weight · (x[row] / sqrt(mean(x[row]²) + epsilon))`, as Hugging Face's LlamaRMSNorm
/// in f32. `out` may be `x`.
///
/// - Parameters:
///   - x: `[rowCount, width]`, rows `xStride` floats apart.
///   - weight: `[width]`.
///   - out: `[rowCount, width]`, rows `outStride` floats apart.
public func rmsNorm(
    _ x: UnsafePointer<Float>, xStride: Int, rowCount: Int, width: Int,
    weight: UnsafePointer<Float>, epsilon: Float, out: UnsafeMutablePointer<Float>,
    outStride: Int, pool: WorkerPool
) {
    precondition(rowCount >= 0 && width > 0, "empty rows")
    precondition(rowCount <= 1 || (xStride >= width && outStride >= width), "rows overlap")
    let kernels = pool.kernels
    pool.runRanges(count: rowCount, minimum: rowsPerTask(width)) { rows in
        for row in rows {
            kernels.pointee.rms_norm(
                x + row * xStride, weight, width, epsilon, out + row * outStride)
        }
    }
}

/// `y[row] += x[row]` over `width` columns.
public func addInPlace(
    _ y: UnsafeMutablePointer<Float>, yStride: Int, _ x: UnsafePointer<Float>, xStride: Int,
    rowCount: Int, width: Int, pool: WorkerPool
) {
    precondition(rowCount >= 0 && width >= 0, "negative size")
    precondition(rowCount <= 1 || (xStride >= width && yStride >= width), "rows overlap")
    let kernels = pool.kernels
    pool.runRanges(count: rowCount, minimum: rowsPerTask(width)) { rows in
        for row in rows { kernels.pointee.add(y + row * yStride, x + row * xStride, width) }
    }
}

/// `out[row, i] = silu(gate[row, i]) · up[row, i]`, where a row of `gateUp` is `[gate | up]`.
///
/// - Parameters:
///   - gateUp: `[rowCount, 2 * innerSize]`, rows `gateUpStride` floats apart.
///   - out: `[rowCount, innerSize]`, rows `outStride` floats apart.
public func siluMultiply(
    _ gateUp: UnsafePointer<Float>, gateUpStride: Int, rowCount: Int, innerSize: Int,
    out: UnsafeMutablePointer<Float>, outStride: Int, pool: WorkerPool
) {
    precondition(rowCount >= 0 && innerSize >= 0, "negative size")
    precondition(
        rowCount <= 1 || (gateUpStride >= 2 * innerSize && outStride >= innerSize),
        "rows overlap")
    let kernels = pool.kernels
    pool.runRanges(count: rowCount, minimum: rowsPerTask(4 * innerSize)) { rows in
        for row in rows {
            let gate = gateUp + row * gateUpStride
            kernels.pointee.silu_multiply(gate, gate + innerSize, innerSize, out + row * outStride)
        }
    }
}

/// The rotation tables of rotary position embedding: `[positionCount, rotaryDim / 2]` each.
public struct RotaryTable {
    public var cosine: UnsafePointer<Float>
    public var sine: UnsafePointer<Float>
    public var positionCount: Int
    public var rotaryDim: Int

    public init(
        cosine: UnsafePointer<Float>, sine: UnsafePointer<Float>, positionCount: Int,
        rotaryDim: Int
    ) {
        self.cosine = cosine
        self.sine = sine
        self.positionCount = positionCount
        self.rotaryDim = rotaryDim
    }
}

/// Rotates the first `table.rotaryDim` elements of each head in place: the pair
/// (i, i + rotaryDim/2) by the angle of the row's position, as Hugging Face's `rotate_half`.
///
/// - Parameters:
///   - x: `[rowCount, headCount, headDim]`, rows `stride` floats apart.
///   - positions: `[rowCount]`, each below `table.positionCount`.
public func applyRope(
    _ x: UnsafeMutablePointer<Float>, stride: Int, headCount: Int, headDim: Int,
    positions: UnsafeBufferPointer<Int32>, table: RotaryTable, pool: WorkerPool
) {
    let rotaryDim = table.rotaryDim
    precondition(rotaryDim % 2 == 0 && rotaryDim <= headDim, "rotary dimension \(rotaryDim)")
    precondition(positions.count <= 1 || stride >= headCount * headDim, "rows overlap")
    for position in positions {
        precondition(
            position >= 0 && Int(position) < table.positionCount,
            "position \(position) of \(table.positionCount)")
    }
    let kernels = pool.kernels
    pool.runRanges(count: positions.count, minimum: rowsPerTask(headCount * headDim)) { rows in
        for row in rows {
            let offset = Int(positions[row]) * (rotaryDim / 2)
            kernels.pointee.rope(
                x + row * stride, headCount, headDim, rotaryDim, table.cosine + offset,
                table.sine + offset)
        }
    }
}

/// Index of the first largest of `count` ≥ 1 elements; NaN never wins.
public func argmax(
    _ x: UnsafePointer<Float>, count: Int, level: KernelLevel = Kernels.level
) -> Int {
    precondition(count > 0, "argmax of nothing")
    return loaded(level).pointee.argmax(x, count)
}

/// `log Σ exp(x[i])` over `count` ≥ 1 elements.
public func logSumExp(
    _ x: UnsafePointer<Float>, count: Int, level: KernelLevel = Kernels.level
) -> Float {
    precondition(count > 0, "logSumExp of nothing")
    return loaded(level).pointee.log_sum_exp(x, count)
}

/// `out[i] = exp(x[i])`; `out` may be `x`.
public func exponential(
    _ x: UnsafePointer<Float>, count: Int, out: UnsafeMutablePointer<Float>,
    level: KernelLevel = Kernels.level
) {
    precondition(count >= 0, "negative element count")
    loaded(level).pointee.exponential(x, count, out)
}

func loaded(_ level: KernelLevel) -> UnsafePointer<ck_table> {
    guard let table = level.table else {
        preconditionFailure("kernel level \(level.rawValue) cannot run on this machine")
    }
    return table
}
