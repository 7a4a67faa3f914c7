import CKernels

/// How the operators of a run are cut into tasks: so that a huge segment spreads over the threads,
/// tiny ones stay whole, and a run with little to do stays on the calling thread.
struct AdapterCut {
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

/// Number of pieces of `size` that cover `count`.
func pieces(_ count: Int, _ size: Int) -> Int { (count + size - 1) / size }

extension ShrinkSegment {
    func cost(inFeatures: Int) -> Int {
        AdapterCut.cost(elements: rank * inFeatures, rowCount: rowCount)
    }

    func check(xStride: Int, inFeatures: Int) {
        precondition(inFeatures > 0, "a shrink needs inputs")
        precondition(
            rowStart >= 0 && rowCount >= 0 && rank > 0 && vOffset >= 0, "malformed shrink segment")
        precondition(rowStart + rowCount <= 1 || xStride >= inFeatures, "rows overlap")
    }
}

extension ExpandSegment {
    var cost: Int { AdapterCut.cost(elements: rank * outFeatures, rowCount: rowCount) }

    func check(yStride: Int) {
        precondition(
            rowStart >= 0 && rowCount >= 0 && rank > 0 && rank <= ExpandFactor.maximumRank
                && outFeatures >= 0 && outStart >= 0 && vOffset >= 0, "malformed expand segment")
        precondition(
            rowStart + rowCount <= 1 || outStart + outFeatures <= yStride, "rows overlap")
    }
}

/// The shrinks of a run, cut into pieces.
struct ShrinkRun {
    let x: UnsafePointer<Float>
    let xStride: Int
    let inFeatures: Int
    let v: UnsafeMutablePointer<Float>
    let kernels: UnsafePointer<ck_table>
    let cut: AdapterCut

    func pieceCount(_ segment: ShrinkSegment) -> Int {
        let part = cut.shrink(segment, inFeatures: inFeatures)
        return pieces(segment.rowCount, part.rows) * pieces(segment.rank, part.ranks)
    }

    func callAsFunction(_ segment: ShrinkSegment, piece: Int) {
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

/// The expands of a run, cut into pieces.
struct ExpandRun {
    let v: UnsafePointer<Float>
    let y: UnsafeMutablePointer<Float>
    let yStride: Int
    let kernels: UnsafePointer<ck_table>
    let cut: AdapterCut

    func pieceCount(_ segment: ExpandSegment) -> Int {
        let part = cut.expand(segment)
        return pieces(segment.rowCount, part.rows)
            * pieces(pieces(segment.outFeatures, Int(CK_LANES)), part.panels)
    }

    func callAsFunction(_ segment: ExpandSegment, piece: Int) {
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
