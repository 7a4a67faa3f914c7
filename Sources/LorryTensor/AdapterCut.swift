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
    func shrink(_ segment: ShrinkSegment, inFeatures: Int) -> (rows: Int, across: Int) {
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
    func expand(_ segment: ExpandSegment) -> (rows: Int, across: Int) {
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

extension ShrinkSegment {
    /// Computes some of the segment's rows and ranks, all inputs.
    func run(
        _ x: UnsafePointer<Float>, xStride: Int, inFeatures: Int, v: UnsafeMutablePointer<Float>,
        ranks: Range<Int>, rows: Range<Int>, kernels: UnsafePointer<ck_table>
    ) {
        let offset = ShrinkFactor.scalesOffset(rank: rank, inFeatures: inFeatures, format: format)
        var arguments = ck_shrink(
            x: x + rowStart * xStride, x_stride: xStride, in_features: inFeatures, a: a,
            scales: format.scales(a, offset), format: format.native, rank: rank,
            step_count: ck_shrink_step_count(inFeatures, format.native), v: v + vOffset,
            v_stride: rank)
        kernels.pointee.shrink(
            &arguments, ranks.lowerBound, ranks.upperBound, rows.lowerBound, rows.upperBound)
    }
}

extension ExpandSegment {
    /// Computes some of the segment's rows and of the target's panels of columns, all ranks.
    func run(
        _ v: UnsafePointer<Float>, y: UnsafeMutablePointer<Float>, yStride: Int,
        panels: Range<Int>, rows: Range<Int>, kernels: UnsafePointer<ck_table>
    ) {
        let offset = ExpandFactor.scalesOffset(
            rank: rank, outFeatures: outFeatures, format: format)
        var arguments = ck_expand(
            v: v + vOffset, v_stride: vStride, b: b, scales: format.scales(b, offset),
            format: format.native, rank: rank, out_features: outFeatures, scale: scale,
            y: y + rowStart * yStride + outStart, y_stride: yStride)
        kernels.pointee.expand(
            &arguments, panels.lowerBound, panels.upperBound, rows.lowerBound, rows.upperBound)
    }
}

/// One of the equal parts that a rectangle is cut into, the last ones perhaps smaller.
struct AdapterPiece {
    let rows: Range<Int>
    /// Ranks of a shrink, panels of an expand.
    let across: Range<Int>

    init(_ index: Int, of size: (rows: Int, across: Int), rowCount: Int, acrossCount: Int) {
        let acrossPieces = pieces(acrossCount, size.across)
        let start = index % acrossPieces * size.across
        let row = index / acrossPieces * size.rows
        across = start..<min(start + size.across, acrossCount)
        rows = row..<min(row + size.rows, rowCount)
    }

    static func count(of size: (rows: Int, across: Int), rowCount: Int, acrossCount: Int) -> Int {
        pieces(rowCount, size.rows) * pieces(acrossCount, size.across)
    }
}
