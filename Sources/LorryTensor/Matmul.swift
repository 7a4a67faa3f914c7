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
///   - adjustments: begun ones, of all columns of y; what follows their columns is done here.
public func matmul(
    _ x: UnsafePointer<Float>, xStride: Int, rowCount: Int, weights: PackedMatrix,
    bias: UnsafePointer<Float>?, y: UnsafeMutablePointer<Float>, yStride: Int,
    columns: Range<Int>? = nil, then adjustments: OutputAdjustments? = nil, pool: WorkerPool
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
    let tile = kernels.pointee.tile_panels(weights.format.native, rowCount)
    let cut = MatmulCut(
        tileCount: pieces(end - first, tile), threadCount: pool.threadCount,
        isStreaming: tile == 1)
    func panels(_ task: Int) -> Range<Int> {
        let tiles = cut.tiles(of: task)
        return first + tiles.lowerBound * tile..<min(first + tiles.upperBound * tile, end)
    }
    withUnsafePointer(to: &arguments) { arguments in
        pool.run(taskCount: cut.taskCount) { task in
            let own = panels(task)
            // What this thread will read next, if the threads keep in step.
            let next = task + pool.threadCount
            let ahead = next < cut.taskCount ? panels(next).lowerBound : end
            kernels.pointee.matmul(arguments, own.lowerBound, own.upperBound, ahead)
            guard let adjustments, adjustments.followsColumns else { return }
            let computed = own.lowerBound * width..<own.upperBound * width
            adjustments.adjust(
                computed.clamped(to: columns), y, yStride: yStride, kernels: kernels)
        }
    }
    if let adjustments, adjustments.followsMatmul {
        adjustments.adjust(columns, y, yStride: yStride, kernels: kernels)
    }
}

/// How the tiles of a matmul are cut into tasks, several for each thread: threads that start late or
/// are interrupted balance out.
///
/// Where a matmul streams its weights, which few rows do, memory is the faster the longer a thread
/// reads on: its first task is three quarters of its share, and only the rest is cut up.
package struct MatmulCut {
    package let tileCount: Int
    package let taskCount: Int
    private let threadCount: Int
    private let isStreaming: Bool

    package init(tileCount: Int, threadCount: Int, isStreaming: Bool) {
        self.tileCount = tileCount
        self.threadCount = threadCount
        let streams = isStreaming && threadCount > 1 && tileCount >= 16 * threadCount
        self.isStreaming = streams
        if streams {
            taskCount = threadCount * (1 + Self.partsOfRest)
        } else {
            taskCount = threadCount > 1 ? min(tileCount, threadCount * 16) : 1
        }
    }

    /// Parts into which the rest of a thread's share is cut.
    private static let partsOfRest = 4

    /// The tiles of a task. Together the tasks have each tile once; tasks come in the order in which
    /// they should start.
    package func tiles(of task: Int) -> Range<Int> {
        guard isStreaming else {
            return task * tileCount / taskCount..<(task + 1) * tileCount / taskCount
        }
        let thread = task % threadCount
        let start = thread * tileCount / threadCount
        let end = (thread + 1) * tileCount / threadCount
        let rest = start + (end - start) * 3 / 4
        guard task >= threadCount else { return start..<rest }
        let part = task / threadCount - 1
        return rest + part * (end - rest) / Self.partsOfRest..<rest + (part + 1) * (end - rest)
            / Self.partsOfRest
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
