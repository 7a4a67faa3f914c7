import CKernels

/// The segments of one matmul and what adapters do to each: lists that keep their memory from matmul
/// to matmul, filled anew for each (see `OutputAdjustments`).
public struct AdjustmentParts {
    /// The parts of one segment: where they lie in the lists of all.
    struct Segment {
        var shrink: ShrinkSegment?
        var expands: Range<Int>
        var scales: Range<Int>
        var biases: Range<Int>
        var structured: Range<Int>
        var mixes: Range<Int>
        /// Factor elements, read once per step.
        var elementCount = 0
        var rowStart: Int
        var rowCount: Int
        var way = Way.columns
        /// Whether the columns that the batch's matmul computes are not the segment's last word.
        var waits = false

        var cost: Int { AdapterCut.cost(elements: elementCount, rowCount: rowCount) }
        var needsRows: Bool { waits || !structured.isEmpty || !mixes.isEmpty }
    }

    enum Way {
        /// One task for all.
        case whole
        /// As columns are computed.
        case columns
        /// Tasks of some rows.
        case rows
    }

    struct Structured {
        var delta: StructuredDelta
        var columnStart: Int
    }

    struct Mix {
        var mix: PairMix
        var columnStart: Int
    }

    var segments: [Segment] = []
    private(set) var expands: [ExpandSegment] = []
    private(set) var scales: [VectorSegment] = []
    private(set) var biases: [VectorSegment] = []
    private(set) var structured: [Structured] = []
    private(set) var mixes: [Mix] = []
    /// Floats that all shrinks write.
    private(set) var shrunkCount = 0

    mutating func clear() {
        segments.removeAll(keepingCapacity: true)
        expands.removeAll(keepingCapacity: true)
        scales.removeAll(keepingCapacity: true)
        biases.removeAll(keepingCapacity: true)
        structured.removeAll(keepingCapacity: true)
        mixes.removeAll(keepingCapacity: true)
        shrunkCount = 0
    }

    /// Starts a segment, which has no parts yet.
    ///
    /// - Parameter waits: whether something else writes to its part of y between the matmul and
    ///   `finish`, so that nothing may be done to it before.
    public mutating func appendSegment(rows: Range<Int>, waits: Bool = false) {
        func none(_ count: Int) -> Range<Int> { count..<count }
        segments.append(
            Segment(
                expands: none(expands.count), scales: none(scales.count),
                biases: none(biases.count), structured: none(structured.count),
                mixes: none(mixes.count), rowStart: rows.lowerBound, rowCount: rows.count,
                waits: waits))
    }

    /// Gives the last segment its A; where it puts its result is chosen here.
    ///
    /// - Parameters:
    ///   - elementCount: of A and of the expands that read its result.
    /// - Returns: the place of the result, which the segment's expands refer to.
    public mutating func append(_ shrink: ShrinkSegment, elementCount: Int) -> Int {
        var shrink = shrink
        shrink.vOffset = shrunkCount
        shrunkCount += shrink.rowCount * shrink.rank
        segments[segments.count - 1].shrink = shrink
        segments[segments.count - 1].elementCount += elementCount
        return shrink.vOffset
    }

    /// Adds a matrix that acts on the input itself to the last segment: an expand whose v is a part
    /// of the input's columns, from `vOffset` on.
    public mutating func appendDense(_ expand: ExpandSegment) {
        segments[segments.count - 1].elementCount += expand.rank * expand.outFeatures
        var expand = expand
        expand.readsInput = true
        append(expand)
    }

    /// Adds to the last segment.
    public mutating func append(_ delta: StructuredDelta, columnStart: Int) {
        structured.append(Structured(delta: delta, columnStart: columnStart))
        segments[segments.count - 1].structured = extended(segments[segments.count - 1].structured)
    }

    /// Adds to the last segment; done after the scales, before the biases.
    public mutating func append(_ mix: PairMix, columnStart: Int) {
        mixes.append(Mix(mix: mix, columnStart: columnStart))
        segments[segments.count - 1].mixes = extended(segments[segments.count - 1].mixes)
    }

    /// Adds to the last segment.
    public mutating func append(_ expand: ExpandSegment) {
        expands.append(expand)
        segments[segments.count - 1].expands = extended(segments[segments.count - 1].expands)
    }

    /// Adds to the last segment.
    public mutating func appendScale(_ scale: VectorSegment) {
        scales.append(scale)
        segments[segments.count - 1].scales = extended(segments[segments.count - 1].scales)
    }

    /// Adds to the last segment.
    public mutating func appendBias(_ bias: VectorSegment) {
        biases.append(bias)
        segments[segments.count - 1].biases = extended(segments[segments.count - 1].biases)
    }

    private func extended(_ range: Range<Int>) -> Range<Int> {
        range.lowerBound..<range.upperBound + 1
    }
}
