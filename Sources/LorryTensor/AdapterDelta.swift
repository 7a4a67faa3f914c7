import CKernels

/// A segment's shrink and the expands that take its result, a part of a list of expands.
public struct DeltaSegment {
    public var shrink: ShrinkSegment
    public var expands: Range<Int>

    public init(shrink: ShrinkSegment, expands: Range<Int>) {
        self.shrink = shrink
        self.expands = expands
    }
}

/// `segmentedShrink`, then `segmentedExpand`: y += scale · B (A x) for the rows of each segment.
///
/// Where there are several segments for each thread, one task computes all of a segment: it reads A
/// and B, which lie one after the other, in one go, and all segments take one run. Larger segments
/// are cut, and all of their shrinks come before their expands. The bits are the same.
///
/// - Parameters:
///   - x: f32 `[rows, inFeatures]`, rows `xStride` floats apart.
///   - deltas: their parts of v and their elements of y must not overlap.
///   - v: overwritten where the segments say.
///   - y: f32, rows `yStride` floats apart; changed in place.
public func segmentedDelta(
    _ x: UnsafePointer<Float>, xStride: Int, inFeatures: Int, deltas: [DeltaSegment],
    expands: [ExpandSegment], v: UnsafeMutablePointer<Float>, y: UnsafeMutablePointer<Float>,
    yStride: Int, pool: WorkerPool
) {
    for delta in deltas { delta.shrink.check(xStride: xStride, inFeatures: inFeatures) }
    for expand in expands { expand.check(yStride: yStride) }
    func cost(_ delta: DeltaSegment) -> Int {
        delta.expands.reduce(delta.shrink.cost(inFeatures: inFeatures)) { $0 + expands[$1].cost }
    }
    let cut = AdapterCut(
        total: deltas.reduce(0) { $0 + cost($1) }, threadCount: pool.threadCount)
    let shrink = ShrinkRun(
        x: x, xStride: xStride, inFeatures: inFeatures, v: v, kernels: pool.kernels, cut: cut)
    let expand = ExpandRun(v: v, y: y, yStride: yStride, kernels: pool.kernels, cut: cut)
    func isWhole(_ delta: DeltaSegment) -> Bool { cut.taskCount(cost: cost(delta)) <= 1 }

    pool.runPieces(groupCount: deltas.count) { index in
        isWhole(deltas[index]) ? 1 : shrink.pieceCount(deltas[index].shrink)
    } body: { index, piece in
        let delta = deltas[index]
        guard isWhole(delta) else { return shrink(delta.shrink, piece: piece) }
        // What this thread will read next, if the threads keep in step.
        let next = index + pool.threadCount
        if next < deltas.count { ck_fetch(deltas[next].shrink.a, fetchedByteCount) }
        for piece in 0..<shrink.pieceCount(delta.shrink) { shrink(delta.shrink, piece: piece) }
        for index in delta.expands {
            for piece in 0..<expand.pieceCount(expands[index]) {
                expand(expands[index], piece: piece)
            }
        }
    }
    guard !deltas.allSatisfy(isWhole) else { return }
    pool.runPieces(groupCount: deltas.count) { index in
        let delta = deltas[index]
        return isWhole(delta)
            ? 0 : delta.expands.reduce(0) { $0 + expand.pieceCount(expands[$1]) }
    } body: { index, piece in
        var piece = piece
        for index in deltas[index].expands {
            let count = expand.pieceCount(expands[index])
            if piece < count { return expand(expands[index], piece: piece) }
            piece -= count
        }
    }
}

/// Bytes at the start of an operand that are fetched before its turn: the hardware follows a stream
/// only once it is under way.
private let fetchedByteCount = 2048
