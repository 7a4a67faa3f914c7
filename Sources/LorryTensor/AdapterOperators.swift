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
    /// Whether v is the matmul's input instead of what a shrink wrote (see `OutputAdjustments`).
    var readsInput = false

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

/// Rows of a vector segment that one task takes.
private let rowsPerTask = 64

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
    for segment in segments { segment.check(xStride: xStride, inFeatures: inFeatures) }
    let cut = AdapterCut(
        total: segments.reduce(0) { $0 + $1.cost(inFeatures: inFeatures) },
        threadCount: pool.threadCount)
    let kernels = pool.kernels
    pool.runPieces(groupCount: segments.count) { index in
        let segment = segments[index]
        return AdapterPiece.count(
            of: cut.shrink(segment, inFeatures: inFeatures), rowCount: segment.rowCount,
            acrossCount: segment.rank)
    } body: { index, piece in
        let segment = segments[index]
        let piece = AdapterPiece(
            piece, of: cut.shrink(segment, inFeatures: inFeatures), rowCount: segment.rowCount,
            acrossCount: segment.rank)
        segment.run(
            x, xStride: xStride, inFeatures: inFeatures, v: v, ranks: piece.across,
            rows: piece.rows, kernels: kernels)
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
    for segment in segments { segment.check(yStride: yStride) }
    let cut = AdapterCut(
        total: segments.reduce(0) { $0 + $1.cost }, threadCount: pool.threadCount)
    let kernels = pool.kernels
    func panelCount(_ segment: ExpandSegment) -> Int {
        pieces(segment.outFeatures, PackedMatrix.panelWidth)
    }
    pool.runPieces(groupCount: segments.count) { index in
        let segment = segments[index]
        return AdapterPiece.count(
            of: cut.expand(segment), rowCount: segment.rowCount, acrossCount: panelCount(segment))
    } body: { index, piece in
        let segment = segments[index]
        let piece = AdapterPiece(
            piece, of: cut.expand(segment), rowCount: segment.rowCount,
            acrossCount: panelCount(segment))
        segment.run(
            v, y: y, yStride: yStride, panels: piece.across, rows: piece.rows, kernels: kernels)
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
