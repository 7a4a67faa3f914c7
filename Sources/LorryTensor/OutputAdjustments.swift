import CKernels

/// What the adapters of a batch do to the output of one matmul: `y ← mix(g ⊙ (y + Δ x)) + c` for
/// the rows of each segment, where each part may be absent. `Δ x` is a sum of `s · B (A x)`, of
/// matrices that are held whole, and of structured ones.
///
/// A segment is worked on in one of three ways, with the same bits:
/// - a small one by one task after the matmul, which reads A and B, that lie one after the other, in
///   one go;
/// - a large one shrinks before the matmul, and the rest is done to columns as soon as they are
///   computed, by the thread that computed them: they are still in its cache;
/// - one with parts that need whole rows, or whose matmul is not the batch's alone, by tasks of some
///   rows after the matmul.
///
/// `fill`, `begin`, `matmul(…, then: self)`, `finish`. Used by one thread at a time; keeps its memory.
public final class OutputAdjustments {
    private var parts = AdjustmentParts()
    /// Shrinks of large segments.
    private var shrinks: [ShrinkSegment] = []
    /// Indices of small segments.
    private var small: [Int] = []
    /// Indices of segments that are worked on by rows.
    private var byRows: [Int] = []
    private var hasLarge = false
    /// The matmul's input, between `begin` and `finish`.
    private var input: (x: UnsafePointer<Float>, stride: Int)?
    /// Whether the parts of large segments start where panels of the base's columns start, so that no
    /// panel belongs to two tasks.
    private var startsOnPanels = true
    /// Results of the shrinks: each segment's `[rows, rank]`, one after another.
    private var shrunk = AlignedBuffer<Float>(count: 1 << 14)

    public init() {}

    public var isEmpty: Bool { parts.segments.isEmpty }

    public func clear() {
        parts.clear()
        shrinks.removeAll(keepingCapacity: true)
        small.removeAll(keepingCapacity: true)
        byRows.removeAll(keepingCapacity: true)
        input = nil
    }

    /// Takes the segments of a matmul in place of the last one's.
    public func fill(_ append: (inout AdjustmentParts) -> Void) {
        clear()
        append(&parts)
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
        if parts.shrunkCount > shrunk.count {
            shrunk = AlignedBuffer(count: 2 * parts.shrunkCount)
        }
        for expand in parts.expands { expand.check(yStride: yStride) }
        input = (x, xStride)
        let total = parts.segments.reduce(0) { $0 + $1.cost }
        let cut = AdapterCut(total: total, threadCount: pool.threadCount)
        hasLarge = false
        startsOnPanels = true
        for index in parts.segments.indices {
            let way = Self.way(of: parts.segments[index], cut)
            parts.segments[index].way = way
            switch way {
            case .whole: small.append(index)
            case .rows: byRows.append(index)
            case .columns:
                hasLarge = true
                if let shrink = parts.segments[index].shrink { shrinks.append(shrink) }
                for expand in parts.segments[index].expands
                where parts.expands[expand].outStart % PackedMatrix.panelWidth != 0 {
                    startsOnPanels = false
                }
            }
        }
        guard !shrinks.isEmpty else { return }
        segmentedShrink(
            x, xStride: xStride, inFeatures: inFeatures, segments: shrinks, v: shrunk.pointer,
            pool: pool)
    }

    private static func way(of segment: AdjustmentParts.Segment, _ cut: AdapterCut)
        -> AdjustmentParts.Way
    {
        if segment.needsRows { return .rows }
        return segment.shrink != nil && cut.taskCount(cost: segment.cost) <= 1 ? .whole : .columns
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
        for segment in parts.segments where segment.way == .columns {
            adjust(segment, 0..<segment.rowCount, columns, y, yStride, kernels)
        }
    }

    /// Works on the segments that are left.
    ///
    /// - Parameters:
    ///   - x: as given to `begin`.
    ///   - y: the matmul's output, f32, rows `yStride` floats apart; changed in place.
    public func finish(
        _ x: UnsafePointer<Float>, xStride: Int, inFeatures: Int, y: UnsafeMutablePointer<Float>,
        yStride: Int, pool: WorkerPool
    ) {
        for segment in parts.segments where segment.way != .columns {
            segment.shrink?.check(xStride: xStride, inFeatures: inFeatures)
        }
        finishRows(x, xStride: xStride, inFeatures: inFeatures, y: y, yStride: yStride, pool: pool)
        guard !small.isEmpty else { return }
        let kernels = pool.kernels
        pool.run(taskCount: small.count) { task in
            let segment = parts.segments[small[task]]
            // What this thread will read next, if the threads keep in step.
            let next = task + pool.threadCount
            if next < small.count, let a = parts.segments[small[next]].shrink?.a {
                ck_fetch(a, Self.fetchedByteCount)
            }
            guard let shrink = segment.shrink else { return }
            shrink.run(
                x, xStride: xStride, inFeatures: inFeatures, v: shrunk.pointer,
                ranks: 0..<shrink.rank, rows: 0..<shrink.rowCount, kernels: kernels)
            adjust(segment, 0..<segment.rowCount, 0..<yStride, y, yStride, kernels)
        }
    }

    /// Rows that a task of a segment takes that is worked on by rows.
    private static let taskRowCount = 8

    private func finishRows(
        _ x: UnsafePointer<Float>, xStride: Int, inFeatures: Int, y: UnsafeMutablePointer<Float>,
        yStride: Int, pool: WorkerPool
    ) {
        let kernels = pool.kernels
        pool.runPieces(groupCount: byRows.count) { index in
            pieces(parts.segments[byRows[index]].rowCount, Self.taskRowCount)
        } body: { index, piece in
            let segment = parts.segments[byRows[index]]
            let first = piece * Self.taskRowCount
            let rows = first..<min(first + Self.taskRowCount, segment.rowCount)
            if let shrink = segment.shrink {
                shrink.run(
                    x, xStride: xStride, inFeatures: inFeatures, v: shrunk.pointer,
                    ranks: 0..<shrink.rank, rows: rows, kernels: kernels)
            }
            for row in rows {
                let input = x + (segment.rowStart + row) * xStride
                let output = y + (segment.rowStart + row) * yStride
                for index in segment.structured {
                    let part = parts.structured[index]
                    part.delta.add(input, to: output + part.columnStart, kernels: kernels)
                }
            }
            adjust(segment, rows, 0..<yStride, y, yStride, kernels)
        }
    }

    /// Bytes at the start of an operand that are fetched before its turn: the hardware follows a
    /// stream only once it is under way.
    private static let fetchedByteCount = 2048

    /// - Parameters:
    ///   - rows: counted from the segment's first.
    private func adjust(
        _ segment: AdjustmentParts.Segment, _ rows: Range<Int>, _ columns: Range<Int>,
        _ y: UnsafeMutablePointer<Float>, _ yStride: Int, _ kernels: UnsafePointer<ck_table>
    ) {
        for index in segment.expands {
            let expand = parts.expands[index]
            let part = columns.clamped(
                to: expand.outStart..<expand.outStart + expand.outFeatures)
            guard !part.isEmpty else { continue }
            let width = PackedMatrix.panelWidth
            let first = (part.lowerBound - expand.outStart) / width
            let end = pieces(part.upperBound - expand.outStart, width)
            expand.run(
                source(of: expand), y: y, yStride: yStride, panels: first..<end, rows: rows,
                kernels: kernels)
        }
        let all = segment.rowStart + rows.lowerBound..<segment.rowStart + rows.upperBound
        for index in segment.scales {
            parts.scales[index].apply(kernels.pointee.multiply, all, columns, y, yStride)
        }
        for index in segment.mixes {
            for row in all {
                let part = parts.mixes[index]
                part.mix.apply(y + row * yStride + part.columnStart, kernels: kernels)
            }
        }
        for index in segment.biases {
            parts.biases[index].apply(kernels.pointee.add, all, columns, y, yStride)
        }
    }

    /// Where an expand's v begins.
    private func source(of expand: ExpandSegment) -> UnsafePointer<Float> {
        guard expand.readsInput else { return UnsafePointer(shrunk.pointer) }
        guard let input else { preconditionFailure("an input is read that was not begun") }
        return input.x + expand.rowStart * input.stride
    }
}

extension VectorSegment {
    fileprivate func apply(
        _ kernel: (UnsafeMutablePointer<Float>, UnsafePointer<Float>, Int) -> Void,
        _ rows: Range<Int>, _ columns: Range<Int>, _ y: UnsafeMutablePointer<Float>, _ yStride: Int
    ) {
        let part = columns.clamped(to: start..<start + count)
        guard !part.isEmpty else { return }
        for row in rows {
            kernel(
                y + row * yStride + part.lowerBound, vector + part.lowerBound - start, part.count)
        }
    }
}
