import CKernels

/// What the adapters of a batch do to the output of one matmul: `y ← g ⊙ (y + s · B (A x)) + c` for
/// the rows of each segment, where each part may be absent.
///
/// A segment is worked on in one of two ways, with the same bits:
/// - a small one by one task after the matmul, which reads A and B, that lie one after the other, in
///   one go;
/// - a large one shrinks before the matmul, and the rest is done to columns as soon as they are
///   computed, by the thread that computed them: they are still in its cache.
///
/// `clear`, `append` for each segment, `begin`, `matmul(…, then: self)`, `finish`. Used by one thread
/// at a time; keeps its memory.
public final class OutputAdjustments {
    /// The parts of one segment: where they lie in the lists of all.
    private struct Segment {
        var shrink: ShrinkSegment?
        var expands: Range<Int>
        var scales: Range<Int>
        var biases: Range<Int>
        /// Factor elements, read once per step.
        var elementCount: Int
        var rowCount: Int
        var isSmall = false

        var cost: Int { AdapterCut.cost(elements: elementCount, rowCount: rowCount) }
    }

    private var segments: [Segment] = []
    private var expands: [ExpandSegment] = []
    private var scales: [VectorSegment] = []
    private var biases: [VectorSegment] = []
    /// Shrinks of large segments.
    private var shrinks: [ShrinkSegment] = []
    /// Indices of small segments.
    private var small: [Int] = []
    private var hasLarge = false
    /// Whether the parts of large segments start where panels of the base's columns start, so that no
    /// panel belongs to two tasks.
    private var startsOnPanels = true
    /// Results of the shrinks: each segment's `[rows, rank]`, one after another.
    private var shrunk = AlignedBuffer<Float>(count: 1 << 14)
    private var shrunkCount = 0

    public init() {}

    public var isEmpty: Bool { segments.isEmpty }

    public func clear() {
        segments.removeAll(keepingCapacity: true)
        expands.removeAll(keepingCapacity: true)
        scales.removeAll(keepingCapacity: true)
        biases.removeAll(keepingCapacity: true)
        shrinks.removeAll(keepingCapacity: true)
        small.removeAll(keepingCapacity: true)
        shrunkCount = 0
    }

    /// Starts a segment, which has no parts yet.
    public func appendSegment(rowCount: Int) {
        segments.append(
            Segment(
                expands: expands.count..<expands.count, scales: scales.count..<scales.count,
                biases: biases.count..<biases.count, elementCount: 0, rowCount: rowCount))
    }

    /// Gives the last segment its A; where it puts its result is chosen here.
    ///
    /// - Parameters:
    ///   - elementCount: of A and of the segment's expands.
    /// - Returns: the place of the result, which the segment's expands refer to.
    public func append(_ shrink: ShrinkSegment, elementCount: Int) -> Int {
        var shrink = shrink
        shrink.vOffset = shrunkCount
        shrunkCount += shrink.rowCount * shrink.rank
        segments[segments.count - 1].shrink = shrink
        segments[segments.count - 1].elementCount = elementCount
        return shrink.vOffset
    }

    /// Adds to the last segment.
    public func append(_ expand: ExpandSegment) {
        expands.append(expand)
        segments[segments.count - 1].expands = extended(segments[segments.count - 1].expands)
    }

    /// Adds to the last segment.
    public func appendScale(_ scale: VectorSegment) {
        scales.append(scale)
        segments[segments.count - 1].scales = extended(segments[segments.count - 1].scales)
    }

    /// Adds to the last segment.
    public func appendBias(_ bias: VectorSegment) {
        biases.append(bias)
        segments[segments.count - 1].biases = extended(segments[segments.count - 1].biases)
    }

    private func extended(_ range: Range<Int>) -> Range<Int> {
        range.lowerBound..<range.upperBound + 1
    }

    // MARK: - Around a matmul

    /// Decides how each segment is worked on, and runs the shrinks of large ones.
    ///
    /// - Parameters:
    ///   - x: the matmul's input, f32 `[rows, inFeatures]`, rows `xStride` floats apart.
    ///   - yStride: of the matmul's output, all of whose columns are computed at once.
    public func begin(
        _ x: UnsafePointer<Float>, xStride: Int, inFeatures: Int, yStride: Int, pool: WorkerPool
    ) {
        if shrunkCount > shrunk.count { shrunk = AlignedBuffer(count: 2 * shrunkCount) }
        for expand in expands { expand.check(yStride: yStride) }
        let total = segments.reduce(0) { $0 + $1.cost }
        let cut = AdapterCut(total: total, threadCount: pool.threadCount)
        hasLarge = false
        startsOnPanels = true
        for index in segments.indices {
            let segment = segments[index]
            segments[index].isSmall =
                segment.shrink != nil && cut.taskCount(cost: segment.cost) <= 1
            if segments[index].isSmall {
                small.append(index)
                continue
            }
            hasLarge = true
            if let shrink = segment.shrink { shrinks.append(shrink) }
            for expand in segment.expands
            where expands[expand].outStart % PackedMatrix.panelWidth != 0 {
                startsOnPanels = false
            }
        }
        guard !shrinks.isEmpty else { return }
        segmentedShrink(
            x, xStride: xStride, inFeatures: inFeatures, segments: shrinks, v: shrunk.pointer,
            pool: pool)
    }

    /// Whether columns are to be passed to `adjust` as soon as they are computed.
    var followsColumns: Bool { hasLarge && startsOnPanels }
    /// Whether columns are to be passed to `adjust` once all are computed.
    var followsMatmul: Bool { hasLarge && !startsOnPanels }

    /// What remains to be done to these columns for the large segments.
    func adjust(
        _ columns: Range<Int>, _ y: UnsafeMutablePointer<Float>, yStride: Int,
        kernels: UnsafePointer<ck_table>
    ) {
        for segment in segments where !segment.isSmall {
            adjust(segment, columns, y, yStride, kernels)
        }
    }

    /// Works on the small segments.
    ///
    /// - Parameters:
    ///   - x: as given to `begin`.
    ///   - y: the matmul's output, f32, rows `yStride` floats apart; changed in place.
    public func finish(
        _ x: UnsafePointer<Float>, xStride: Int, inFeatures: Int, y: UnsafeMutablePointer<Float>,
        yStride: Int, pool: WorkerPool
    ) {
        guard !small.isEmpty else { return }
        for index in small {
            segments[index].shrink?.check(xStride: xStride, inFeatures: inFeatures)
        }
        let kernels = pool.kernels
        pool.run(taskCount: small.count) { task in
            let segment = segments[small[task]]
            // What this thread will read next, if the threads keep in step.
            let next = task + pool.threadCount
            if next < small.count, let a = segments[small[next]].shrink?.a {
                ck_fetch(a, Self.fetchedByteCount)
            }
            guard let shrink = segment.shrink else { return }
            shrink.run(
                x, xStride: xStride, inFeatures: inFeatures, v: shrunk.pointer,
                ranks: 0..<shrink.rank, rows: 0..<shrink.rowCount, kernels: kernels)
            adjust(segment, 0..<yStride, y, yStride, kernels)
        }
    }

    /// Bytes at the start of an operand that are fetched before its turn: the hardware follows a
    /// stream only once it is under way.
    private static let fetchedByteCount = 2048

    private func adjust(
        _ segment: Segment, _ columns: Range<Int>, _ y: UnsafeMutablePointer<Float>,
        _ yStride: Int, _ kernels: UnsafePointer<ck_table>
    ) {
        for index in segment.expands {
            let expand = expands[index]
            let part = columns.clamped(
                to: expand.outStart..<expand.outStart + expand.outFeatures)
            guard !part.isEmpty else { continue }
            let width = PackedMatrix.panelWidth
            let first = (part.lowerBound - expand.outStart) / width
            let end = pieces(part.upperBound - expand.outStart, width)
            expand.run(
                shrunk.pointer, y: y, yStride: yStride, panels: first..<end,
                rows: 0..<expand.rowCount, kernels: kernels)
        }
        for index in segment.scales {
            scales[index].apply(kernels.pointee.multiply, columns, y, yStride)
        }
        for index in segment.biases {
            biases[index].apply(kernels.pointee.add, columns, y, yStride)
        }
    }
}

extension VectorSegment {
    fileprivate func apply(
        _ kernel: (UnsafeMutablePointer<Float>, UnsafePointer<Float>, Int) -> Void,
        _ columns: Range<Int>, _ y: UnsafeMutablePointer<Float>, _ yStride: Int
    ) {
        let part = columns.clamped(to: start..<start + count)
        guard !part.isEmpty else { return }
        for row in rowStart..<rowStart + rowCount {
            kernel(
                y + row * yStride + part.lowerBound, vector + part.lowerBound - start, part.count)
        }
    }
}
