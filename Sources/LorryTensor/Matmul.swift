import CKernels

/// `y[row, column] = Σ_k x[row, k] · W[column, k] + bias[column]` for the rows of a batch.
///
/// An element's sum runs over k = 0, 1, … in one order, whatever the other rows and columns, so its
/// bits depend on its own row and column only:
/// - f32 weights, and bf16 below the level avx512-bf16: one chain of multiply-adds (fused above the
///   portable level).
/// - bf16 at that level: x is rounded to bf16; a chain of dot products of two.
/// - int8 and int4: x is rounded to 8 bits with a scale per 32 inputs, max |x| / 127; integer sums
///   of 32 products, exact, then a chain of multiply-adds over these sums times both scales.
///
/// The bias is added last.
///
/// - Parameters:
///   - x: f32 `[rowCount, inFeatures]`, rows `xStride` floats apart.
///   - bias: `[outFeatures]`, or nil.
///   - y: f32 `[rowCount, outFeatures]`, rows `yStride` floats apart; overwritten.
///   - columns: the columns of y to compute; nil means all. y and bias are indexed by the full
///     column all the same.
public func matmul(
    _ x: UnsafePointer<Float>, xStride: Int, rowCount: Int, weights: PackedMatrix,
    bias: UnsafePointer<Float>?, y: UnsafeMutablePointer<Float>, yStride: Int,
    columns: Range<Int>? = nil, pool: WorkerPool
) {
    let columns = columns ?? 0..<weights.outFeatures
    precondition(rowCount >= 0, "negative row count")
    precondition(
        columns.lowerBound >= 0 && columns.upperBound <= weights.outFeatures,
        "columns \(columns) of \(weights.outFeatures)")
    precondition(
        rowCount <= 1 || (xStride >= weights.inFeatures && yStride >= columns.upperBound),
        "rows overlap")
    guard rowCount > 0, !columns.isEmpty else { return }
    let rows = prepareRows(x, stride: xStride, count: rowCount, for: weights, pool: pool)
    var arguments = ck_matmul(
        rows: rows.start, row_stride: rows.stride, row_count: rowCount, weights: weights.panels,
        format: weights.format.native, in_features: weights.inFeatures, bias: bias, y: y,
        y_stride: yStride, column_start: columns.lowerBound, column_end: columns.upperBound)
    let width = PackedMatrix.panelWidth
    let first = columns.lowerBound / width
    let end = (columns.upperBound + width - 1) / width
    let kernels = pool.kernels
    // Cut between tiles, several tasks per thread: threads that start late or are interrupted
    // balance out.
    let tile = kernels.pointee.tile_panels(weights.format.native, rowCount)
    let tileCount = (end - first + tile - 1) / tile
    let taskCount = pool.threadCount > 1 ? min(tileCount, pool.threadCount * 16) : 1
    func start(_ task: Int) -> Int { min(first + task * tileCount / taskCount * tile, end) }
    withUnsafePointer(to: &arguments) { arguments in
        pool.run(taskCount: taskCount) { task in
            // What this thread will read next, if the threads keep in step.
            let ahead = start(min(task + pool.threadCount, taskCount))
            kernels.pointee.matmul(arguments, start(task), start(task + 1), ahead)
        }
    }
}

/// Brings rows into the form that the level's kernel for `weights` takes.
///
/// - Returns: the first row and the bytes from one row to the next.
private func prepareRows(
    _ x: UnsafePointer<Float>, stride: Int, count: Int, for weights: PackedMatrix, pool: WorkerPool
) -> (start: UnsafeRawPointer, stride: Int) {
    let kernels = pool.kernels
    let format = weights.format.native
    let form = kernels.pointee.row_form(format)
    guard form != .CK_ROWS_F32 else {
        return (UnsafeRawPointer(x), stride * MemoryLayout<Float>.stride)
    }
    let inFeatures = weights.inFeatures
    // Whole cache lines, an odd number of them: rows a power of two apart would share few sets.
    let lineCount = (ck_row_byte_count(inFeatures, form) + 63) / 64 | 1
    let byteCount = lineCount * 64
    let rows = pool.rowScratch(byteCount: count * byteCount)
    pool.runRanges(count: count, minimum: max(1, 32768 / inFeatures)) { range in
        for row in range {
            kernels.pointee.prepare_row(
                x + row * stride, inFeatures, format, rows + row * byteCount)
        }
    }
    return (UnsafeRawPointer(rows), byteCount)
}
