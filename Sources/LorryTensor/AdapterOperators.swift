import CKernels

// Segmented adapter operators: each segment is a run of batch rows that share an adapter. Nothing
// is padded to the largest rank, and rows in no segment are not touched.

/// The A factor of one adapter on one target: `v = x · Aᵀ`.
public struct ShrinkSegment {
    public var rowStart: Int
    public var rowCount: Int
    /// Packed by `ShrinkFactor`.
    public var a: UnsafeRawPointer
    public var rank: Int
    public var format: OperandFormat
    /// Floats from the start of `v` to this segment's `[rowCount, rank]`.
    public var vOffset: Int

    public init(
        rowStart: Int, rowCount: Int, a: UnsafeRawPointer, rank: Int, format: OperandFormat,
        vOffset: Int
    ) {
        self.rowStart = rowStart
        self.rowCount = rowCount
        self.a = a
        self.rank = rank
        self.format = format
        self.vOffset = vOffset
    }
}

/// The B factor of one adapter on one target: `y += scale · v · B`.
public struct ExpandSegment {
    public var rowStart: Int
    public var rowCount: Int
    /// Packed by `ExpandFactor`.
    public var b: UnsafeRawPointer
    public var rank: Int
    public var format: OperandFormat
    /// Floats from the start of `v` to the segment's first row's first value for this target.
    public var vOffset: Int
    /// Floats from one row of v to the next: the rank of the whole shrink, which may serve several
    /// targets.
    public var vStride: Int
    /// The target's columns of y.
    public var outStart: Int
    public var outFeatures: Int
    public var scale: Float

    public init(
        rowStart: Int, rowCount: Int, b: UnsafeRawPointer, rank: Int, format: OperandFormat,
        vOffset: Int, vStride: Int, outStart: Int, outFeatures: Int, scale: Float
    ) {
        self.rowStart = rowStart
        self.rowCount = rowCount
        self.b = b
        self.rank = rank
        self.format = format
        self.vOffset = vOffset
        self.vStride = vStride
        self.outStart = outStart
        self.outFeatures = outFeatures
        self.scale = scale
    }
}

/// A vector applied to the rows of a segment.
public struct VectorSegment {
    public var rowStart: Int
    public var rowCount: Int
    /// `[count]`
    public var vector: UnsafePointer<Float>
    /// First column of y.
    public var start: Int
    public var count: Int

    public init(
        rowStart: Int, rowCount: Int, vector: UnsafePointer<Float>, start: Int, count: Int
    ) {
        self.rowStart = rowStart
        self.rowCount = rowCount
        self.vector = vector
        self.start = start
        self.count = count
    }
}

/// How the operators of a run are cut into tasks: so that a huge segment spreads over the threads,
/// tiny ones stay whole, and a run with little to do stays on the calling thread.
private struct Cut {
    /// The cost that a task should have: factor elements times rows.
    private let share: Int
    /// A row alone waits for its factor's bytes, which feed some rows in the same time.
    private static let rowsPerRead = 8
    /// Factor elements of a task that is worth waking a thread for.
    private static let minimum = 16384 * rowsPerRead
    /// Rows of the tallest register tile.
    private static let tileRowCount = 6

    init(total: Int, threadCount: Int) {
        share = max(Self.minimum, total / (4 * threadCount) + 1)
    }

    static func cost(elements: Int, rowCount: Int) -> Int {
        rowCount == 0 ? 0 : elements * max(rowCount, rowsPerRead)
    }

    func taskCount(cost: Int) -> Int { (cost + share - 1) / share }

    /// The size of about `parts` equal parts, a multiple of `unit`.
    static func part(of count: Int, into parts: Int, unit: Int) -> Int {
        max(unit, pieces(pieces(count, max(parts, 1)), unit) * unit)
    }

    /// A shrink is cut by rows first, since each task prepares its rows for all ranks.
    func shrink(_ segment: ShrinkSegment, inFeatures: Int) -> (rows: Int, ranks: Int) {
        let count = taskCount(
            cost: Self.cost(elements: segment.rank * inFeatures, rowCount: segment.rowCount))
        let rowParts = min(count, pieces(segment.rowCount, Self.tileRowCount))
        return (
            Self.part(of: segment.rowCount, into: rowParts, unit: 1),
            Self.part(
                of: segment.rank, into: pieces(count, max(rowParts, 1)), unit: Int(CK_RANK_TILE))
        )
    }

    /// An expand is cut by panels first, so that each part of B is read by one thread.
    func expand(_ segment: ExpandSegment) -> (rows: Int, panels: Int) {
        let count = taskCount(
            cost: Self.cost(
                elements: segment.rank * segment.outFeatures, rowCount: segment.rowCount))
        let panels = pieces(segment.outFeatures, Int(CK_LANES))
        let panelParts = min(count, pieces(panels, 8))
        return (
            Self.part(of: segment.rowCount, into: pieces(count, max(panelParts, 1)), unit: 1),
            Self.part(of: panels, into: panelParts, unit: 8)
        )
    }
}

/// Rows of a vector segment that one task takes.
private let rowsPerTask = 64

/// Number of pieces of `size` that cover `count`.
private func pieces(_ count: Int, _ size: Int) -> Int { (count + size - 1) / size }

/// `v[row, j] = Σ_i x[row, i] · a[j, i]` for the rows of each segment.
///
/// An element is summed over i in 16 lanes, then over the lanes in a fixed tree, so its bits depend
/// on its row of x and its row of A only. With bf16, level `avx512-bf16` rounds x to bf16; with int8
/// every level rounds x to 15 bits and a sign, of the row's largest magnitude.
///
/// - Parameters:
///   - x: f32 `[rows, inFeatures]`, rows `xStride` floats apart.
///   - v: overwritten where the segments say; their parts must not overlap.
public func segmentedShrink(
    _ x: UnsafePointer<Float>, xStride: Int, inFeatures: Int, segments: [ShrinkSegment],
    v: UnsafeMutablePointer<Float>, pool: WorkerPool
) {
    precondition(inFeatures > 0, "a shrink needs inputs")
    for segment in segments {
        precondition(
            segment.rowStart >= 0 && segment.rowCount >= 0 && segment.rank > 0
                && segment.vOffset >= 0, "malformed shrink segment")
        precondition(
            segment.rowStart + segment.rowCount <= 1 || xStride >= inFeatures, "rows overlap")
    }
    let kernels = pool.kernels
    let cut = Cut(
        total: segments.reduce(0) {
            $0 + Cut.cost(elements: $1.rank * inFeatures, rowCount: $1.rowCount)
        }, threadCount: pool.threadCount)
    pool.runPieces(groupCount: segments.count) { index in
        let part = cut.shrink(segments[index], inFeatures: inFeatures)
        return pieces(segments[index].rowCount, part.rows)
            * pieces(segments[index].rank, part.ranks)
    } body: { index, piece in
        let segment = segments[index]
        let part = cut.shrink(segment, inFeatures: inFeatures)
        let rankPieces = pieces(segment.rank, part.ranks)
        let rank = piece % rankPieces * part.ranks
        let row = piece / rankPieces * part.rows
        let offset = ShrinkFactor.scalesOffset(
            rank: segment.rank, inFeatures: inFeatures, format: segment.format)
        var arguments = ck_shrink(
            x: x + segment.rowStart * xStride, x_stride: xStride, in_features: inFeatures,
            a: segment.a, scales: segment.format.scales(segment.a, offset),
            format: segment.format.native, rank: segment.rank,
            step_count: ck_shrink_step_count(inFeatures, segment.format.native),
            v: v + segment.vOffset, v_stride: segment.rank)
        kernels.pointee.shrink(
            &arguments, rank, min(rank + part.ranks, segment.rank), row,
            min(row + part.rows, segment.rowCount))
    }
}

/// `y[row, outStart + o] += scale · Σ_j v[row, j] · b[j, o]` for the rows of each segment.
///
/// An element's sum is one chain over j, so its bits depend on its own row and column only. v is
/// rounded as the shrink rounds x. Segments of one call must not share an element of y.
///
/// - Parameters:
///   - v: what `segmentedShrink` wrote.
///   - y: f32, rows `yStride` floats apart; changed in place.
public func segmentedExpand(
    _ v: UnsafePointer<Float>, segments: [ExpandSegment], y: UnsafeMutablePointer<Float>,
    yStride: Int, pool: WorkerPool
) {
    for segment in segments {
        precondition(
            segment.rowStart >= 0 && segment.rowCount >= 0 && segment.rank > 0
                && segment.rank <= ExpandFactor.maximumRank && segment.outFeatures >= 0
                && segment.outStart >= 0 && segment.vOffset >= 0,
            "malformed expand segment")
        precondition(
            segment.rowStart + segment.rowCount <= 1
                || segment.outStart + segment.outFeatures <= yStride, "rows overlap")
    }
    let kernels = pool.kernels
    let cut = Cut(
        total: segments.reduce(0) {
            $0 + Cut.cost(elements: $1.rank * $1.outFeatures, rowCount: $1.rowCount)
        }, threadCount: pool.threadCount)
    pool.runPieces(groupCount: segments.count) { index in
        let part = cut.expand(segments[index])
        return pieces(segments[index].rowCount, part.rows)
            * pieces(pieces(segments[index].outFeatures, Int(CK_LANES)), part.panels)
    } body: { index, piece in
        let segment = segments[index]
        let part = cut.expand(segment)
        let panels = pieces(segment.outFeatures, Int(CK_LANES))
        let panelPieces = pieces(panels, part.panels)
        let panel = piece % panelPieces * part.panels
        let row = piece / panelPieces * part.rows
        let offset = ExpandFactor.scalesOffset(
            rank: segment.rank, outFeatures: segment.outFeatures, format: segment.format)
        var arguments = ck_expand(
            v: v + segment.vOffset, v_stride: segment.vStride, b: segment.b,
            scales: segment.format.scales(segment.b, offset), format: segment.format.native,
            rank: segment.rank, out_features: segment.outFeatures, scale: segment.scale,
            y: y + segment.rowStart * yStride + segment.outStart, y_stride: yStride)
        kernels.pointee.expand(
            &arguments, panel, min(panel + part.panels, panels), row,
            min(row + part.rows, segment.rowCount))
    }
}

/// `y[row, start + i] *= vector[i]` for the rows of each segment: IA3 and DoRA scales.
public func segmentedScale(
    _ y: UnsafeMutablePointer<Float>, yStride: Int, segments: [VectorSegment], pool: WorkerPool
) {
    applyVectors(y, yStride: yStride, segments: segments, pool: pool, kernel: \.multiply)
}

/// `y[row, start + i] += vector[i]` for the rows of each segment: bias deltas.
public func segmentedAdd(
    _ y: UnsafeMutablePointer<Float>, yStride: Int, segments: [VectorSegment], pool: WorkerPool
) {
    applyVectors(y, yStride: yStride, segments: segments, pool: pool, kernel: \.add)
}

private typealias VectorKernel =
    @convention(c) (UnsafeMutablePointer<Float>, UnsafePointer<Float>, Int) -> Void

private func applyVectors(
    _ y: UnsafeMutablePointer<Float>, yStride: Int, segments: [VectorSegment], pool: WorkerPool,
    kernel: KeyPath<ck_table, VectorKernel>
) {
    for segment in segments {
        precondition(
            segment.rowStart >= 0 && segment.rowCount >= 0 && segment.start >= 0
                && segment.count >= 0, "malformed vector segment")
        precondition(
            segment.rowStart + segment.rowCount <= 1 || segment.start + segment.count <= yStride,
            "rows overlap")
    }
    let apply = pool.kernels.pointee[keyPath: kernel]
    pool.runPieces(groupCount: segments.count) { index in
        pieces(segments[index].rowCount, rowsPerTask)
    } body: { index, piece in
        let segment = segments[index]
        let first = piece * rowsPerTask
        for row in first..<min(first + rowsPerTask, segment.rowCount) {
            apply(
                y + (segment.rowStart + row) * yStride + segment.start, segment.vector,
                segment.count)
        }
    }
}
