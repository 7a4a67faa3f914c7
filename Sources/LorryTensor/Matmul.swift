import CKernels

/// `y[row, column] = Σ_k x[row, k] · W[column, k] + bias[column]` for the rows of a batch.
///
/// Each element is one chain of (fused, above the portable level) multiply-adds over k = 0, 1, …,
/// to which the bias is added, so its bits depend on its own row and column only.
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
    var arguments = ck_matmul(
        x: x, x_stride: xStride, row_count: rowCount, weights: weights.panels,
        format: weights.format.native, in_features: weights.inFeatures, bias: bias, y: y,
        y_stride: yStride, column_start: columns.lowerBound, column_end: columns.upperBound)
    let width = PackedMatrix.panelWidth
    let first = columns.lowerBound / width
    let count = (columns.upperBound + width - 1) / width - first
    let size = panelsPerTask(count: count, threadCount: pool.threadCount)
    let kernels = pool.kernels
    withUnsafePointer(to: &arguments) { arguments in
        pool.run(taskCount: (count + size - 1) / size) { task in
            let start = first + task * size
            kernels.pointee.matmul(arguments, start, min(start + size, first + count))
        }
    }
}

/// Panels per task: several tasks per thread so that threads that start late or are interrupted
/// balance out, in multiples of four, the width of the widest many-row tile.
private func panelsPerTask(count: Int, threadCount: Int) -> Int {
    guard threadCount > 1 else { return count }
    let share = (count + threadCount * 8 - 1) / (threadCount * 8)
    return (share + 3) / 4 * 4
}
