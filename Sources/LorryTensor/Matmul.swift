import CKernels

/// `y[row, column] = Σ_k x[row, k] · W[column, k] + bias[column]` for the rows of a batch.
///
/// An element's sum runs over k = 0, 1, … in one order, whatever the other rows and columns, so its
/// bits depend on its own row and column only:
/// - f32 weights, and bf16 below the level avx512-bf16: one chain of multiply-adds (fused above the
///   portable level).
/// - bf16 at that level: x is rounded to bf16; a chain of dot products of two.
/// - int8 and int4: x is rounded to 8 bits with a scale per 32 inputs, max |x| / 127, for int4
///   the power of two from there up; integer sums of 32 products, exact, then a chain of
///   multiply-adds over these sums times both scales. A row with NaN or an infinity, for int4 also
///   with a number of 2^60 or more, gives NaN.
///
/// The bias is added last.
///
/// - Parameters:
///   - x: f32 `[rowCount, inFeatures]`, rows `xStride` floats apart.
///   - bias: `[outFeatures]`, or nil.
///   - y: f32 `[rowCount, outFeatures]`, rows `yStride` floats apart; overwritten.
///   - columns: the columns of y to compute; nil means all. y and bias are indexed by the full
///     column all the same.
///   - reruns: parts of y with inputs of their own; their weights are read once with the others'.
///   - adjustments: begun ones, of all columns of y; what follows their columns is done here.
public func matmul(
    _ x: UnsafePointer<Float>, xStride: Int, rowCount: Int, weights: PackedMatrix,
    bias: UnsafePointer<Float>?, y: UnsafeMutablePointer<Float>, yStride: Int,
    columns: Range<Int>? = nil, reruns: [MatmulRerun] = [],
    then adjustments: OutputAdjustments? = nil, pool: WorkerPool
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
    let rows = PreparedRows(
        x, stride: xStride, count: rowCount, reruns: reruns, for: weights, pool: pool)
    func arguments(
        _ start: UnsafeRawPointer, _ count: Int, _ y: UnsafeMutablePointer<Float>,
        _ columns: Range<Int>
    ) -> ck_matmul {
        ck_matmul(
            rows: start, row_stride: rows.stride, row_count: count, weights: weights.panels,
            format: weights.format.native, in_features: weights.inFeatures, bias: bias, y: y,
            y_stride: yStride, column_start: columns.lowerBound, column_end: columns.upperBound)
    }
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
    var whole = arguments(rows.start, rowCount, y, columns)
    withUnsafePointer(to: &whole) { whole in
        pool.run(taskCount: cut.taskCount) { task in
            let own = panels(task)
            // What this thread will read next, if the threads keep in step.
            let next = task + pool.threadCount
            let ahead = next < cut.taskCount ? panels(next).lowerBound : end
            var first = own.lowerBound
            while first < own.upperBound {
                // Few panels at a time, so that reruns find their weights in the cache.
                let last = reruns.isEmpty ? own.upperBound : min(first + 4 * tile, own.upperBound)
                kernels.pointee.matmul(
                    whole, first, last, last < own.upperBound ? last : ahead)
                for (index, rerun) in reruns.enumerated() {
                    let part = (first * width..<last * width).clamped(to: rerun.columns)
                    guard !part.isEmpty else { continue }
                    var own = arguments(
                        rows.start(of: index), rerun.rowCount, rerun.y, rerun.columns)
                    own.y_stride = yStride
                    kernels.pointee.matmul(
                        &own, part.lowerBound / width, pieces(part.upperBound, width), last)
                    rerun.copy(part, to: y, stride: yStride)
                }
                first = last
            }
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

/// Columns of some rows of a matmul's output that are computed from other inputs than the rest. The
/// rows of one rerun share the reading of the weights, so there should be one for all rows with the
/// same columns.
public struct MatmulRerun {
    public var columns: Range<Int>
    /// Of y.
    public var rows: [Range<Int>]
    /// f32 `[rows, inFeatures]`, one row after the other.
    public var x: UnsafePointer<Float>
    /// Room for `[rows, yStride]`.
    public var y: UnsafeMutablePointer<Float>

    public init(
        columns: Range<Int>, rows: [Range<Int>], x: UnsafePointer<Float>,
        y: UnsafeMutablePointer<Float>
    ) {
        self.columns = columns
        self.rows = rows
        self.x = x
        self.y = y
    }

    var rowCount: Int { rows.reduce(0) { $0 + $1.count } }

    /// Puts columns in their places.
    func copy(_ columns: Range<Int>, to target: UnsafeMutablePointer<Float>, stride: Int) {
        var source = y + columns.lowerBound
        for range in rows {
            for row in range {
                (target + row * stride + columns.lowerBound).update(
                    from: source, count: columns.count)
                source += stride
            }
        }
    }
}

/// Rows in the form that the level's kernel takes, those of reruns after the others.
private struct PreparedRows {
    /// The first row.
    let start: UnsafeRawPointer
    /// Bytes from one row to the next.
    let stride: Int
    private let rerunStarts: [UnsafeRawPointer]

    func start(of rerun: Int) -> UnsafeRawPointer { rerunStarts[rerun] }

    init(
        _ x: UnsafePointer<Float>, stride xStride: Int, count: Int, reruns: [MatmulRerun],
        for weights: PackedMatrix, pool: WorkerPool
    ) {
        let kernels = pool.kernels
        let format = weights.format.native
        let form = kernels.pointee.row_form(format)
        let inFeatures = weights.inFeatures
        // Single precision needs no preparing, where all rows are equally far apart.
        if form == .CK_ROWS_F32 && (reruns.isEmpty || xStride == inFeatures) {
            start = UnsafeRawPointer(x)
            stride = xStride * MemoryLayout<Float>.stride
            rerunStarts = reruns.map { UnsafeRawPointer($0.x) }
            return
        }
        // Whole cache lines, an odd number of them: rows a power of two apart would share few sets.
        let lineCount = (ck_row_byte_count(inFeatures, form) + 63) / 64 | 1
        let byteCount = lineCount * 64
        let total = reruns.reduce(count) { $0 + $1.rowCount }
        let rows = pool.rowScratch(byteCount: total * byteCount)
        pool.runRanges(count: count, minimum: max(1, 8192 / inFeatures)) { range in
            for row in range {
                kernels.pointee.prepare_row(
                    x + row * xStride, inFeatures, format, rows + row * byteCount)
            }
        }
        var starts: [UnsafeRawPointer] = []
        var next = rows + count * byteCount
        for rerun in reruns {
            starts.append(UnsafeRawPointer(next))
            for row in 0..<rerun.rowCount {
                kernels.pointee.prepare_row(
                    rerun.x + row * inFeatures, inFeatures, format, next + row * byteCount)
            }
            next += rerun.rowCount * byteCount
        }
        start = UnsafeRawPointer(rows)
        stride = byteCount
        rerunStarts = starts
    }
}
