import Foundation
import LorryTensor
import Testing

/// Sequences with random queries, keys and values; blocks lie in the arena in shuffled order, and
/// what was never stored is NaN.
private struct Scene {
    let layout: KVLayout
    let headCount: Int
    let lengths: [Int]
    /// Per sequence `[positions, heads, headDim]`.
    let q: [[Float]]
    let k: [[Float]]
    let v: [[Float]]
    let tables: [[Int32]]
    let blockCount: Int
    static let layer = 1

    init(lengths: [Int], headCount: Int, kvHeadCount: Int, headDim: Int, format: OperandFormat) {
        var generator = SeededGenerator(seed: UInt64(41 + headDim))
        layout = KVLayout(
            layerCount: 2, kvHeadCount: kvHeadCount, headDim: headDim, format: format)
        self.headCount = headCount
        self.lengths = lengths
        q = lengths.map { generator.floats($0 * headCount * headDim, in: -2...2) }
        k = lengths.map { generator.floats($0 * kvHeadCount * headDim, in: -2...2) }
        v = lengths.map { generator.floats($0 * kvHeadCount * headDim) }
        var free = (0..<Int32(lengths.reduce(3) { $0 + ($1 + 15) / 16 })).shuffled(
            using: &generator)
        blockCount = free.count
        tables = lengths.map { length in
            let count = (length + 15) / 16
            defer { free.removeFirst(count) }
            return Array(free.prefix(count))
        }
    }

    /// Attends every position, each sequence cut into chunks of the sizes given (cyclic), all
    /// sequences' n-th chunks in one call.
    func run(chunks: [Int], scoring: AttentionScoring, pool: WorkerPool) -> [[Float]] {
        let width = layout.headDim * headCount
        let kvWidth = layout.headDim * layout.kvHeadCount
        let arena = AlignedBuffer<UInt16>(count: blockCount * layout.blockByteCount / 2)
        // All ones is NaN in both formats.
        arena.elements.update(repeating: 0xffff)
        var result = lengths.map { [Float](repeating: .nan, count: $0 * width) }
        var done = lengths.map { _ in 0 }
        var turn = 0
        let tableStorage = tables.map { table in
            let buffer = AlignedBuffer<Int32>(count: table.count)
            _ = buffer.elements.update(from: table)
            return buffer
        }
        while done != lengths {
            var spans: [AttentionSpan] = []
            var owners: [(sequence: Int, start: Int, count: Int)] = []
            var rows: (q: [Float], k: [Float], v: [Float]) = ([], [], [])
            var rowCount = 0
            for sequence in lengths.indices where done[sequence] < lengths[sequence] {
                let start = done[sequence]
                let count = min(chunks[turn % chunks.count], lengths[sequence] - start)
                turn += 1
                spans.append(
                    AttentionSpan(
                        rowStart: rowCount, rowCount: count, startPosition: start,
                        blockTable: tableStorage[sequence].pointer))
                owners.append((sequence, start, count))
                rows.q += q[sequence][start * width..<(start + count) * width]
                rows.k += k[sequence][start * kvWidth..<(start + count) * kvWidth]
                rows.v += v[sequence][start * kvWidth..<(start + count) * kvWidth]
                rowCount += count
                done[sequence] += count
            }
            storeKV(
                k: rows.k, kStride: kvWidth, v: rows.v, vStride: kvWidth, spans: spans,
                layout: layout, layer: Self.layer, arena: arena.pointer, pool: pool)
            var out = [Float](repeating: .nan, count: rowCount * width)
            pagedAttention(
                q: rows.q, qStride: width, headCount: headCount, spans: spans, layout: layout,
                layer: Self.layer, arena: arena.pointer, scoring: scoring, out: &out,
                outStride: width, pool: pool)
            for (span, owner) in zip(spans, owners) {
                result[owner.sequence].replaceSubrange(
                    owner.start * width..<(owner.start + owner.count) * width,
                    with: out[span.rowStart * width..<(span.rowStart + span.rowCount) * width])
            }
        }
        withExtendedLifetime(tableStorage) {}
        return result
    }

    /// Largest difference from attention in double precision.
    func error(
        of results: [[Float]], scoring: AttentionScoring, level: KernelLevel
    ) -> Double {
        var worst = 0.0
        for sequence in lengths.indices {
            let keys = mapRows(k[sequence], width: layout.headDim, layout.format.rounded)
            let values = mapRows(v[sequence], width: layout.headDim, layout.format.rounded)
            let queries = layout.format.seen(q[sequence], at: level)
            for position in 0..<lengths[sequence] {
                for head in 0..<headCount {
                    let expected = attend(
                        position, head, queries: queries, keys: keys, values: values,
                        scoring: scoring)
                    let start = (position * headCount + head) * layout.headDim
                    for d in 0..<layout.headDim {
                        let difference = abs(Double(results[sequence][start + d]) - expected[d])
                        worst = difference.isNaN ? .infinity : max(worst, difference)
                    }
                }
            }
        }
        return worst
    }

    private func attend(
        _ position: Int, _ head: Int, queries: [Float], keys: [Float], values: [Float],
        scoring: AttentionScoring
    ) -> [Double] {
        let dim = layout.headDim
        let kvHead = head / (headCount / layout.kvHeadCount)
        let first = scoring.slidingWindow.map { max(0, position - $0 + 1) } ?? 0
        let scores = (first...position).map { other -> Double in
            var sum = 0.0
            for d in 0..<dim {
                sum +=
                    Double(queries[(position * headCount + head) * dim + d])
                    * Double(keys[(other * layout.kvHeadCount + kvHead) * dim + d])
            }
            sum *= Double(scoring.scale)
            return scoring.softcap.map { Double($0) * tanh(sum / Double($0)) } ?? sum
        }
        let largest = scores.max() ?? 0
        let weights = scores.map { exp($0 - largest) }
        let total = weights.reduce(0, +)
        return (0..<dim).map { d in
            zip(first...position, weights).reduce(0) { sum, pair in
                sum + pair.1 / total
                    * Double(values[(pair.0 * layout.kvHeadCount + kvHead) * dim + d])
            }
        }
    }
}

@Suite struct AttentionTests {
    private func tolerance(_ format: OperandFormat, _ level: KernelLevel) -> Double {
        switch format {
        case .f32: Tolerance.attention
        case .bf16: level == .avx512BF16 ? Tolerance.bf16Weights : Tolerance.attention
        case .int8: Tolerance.wordWeights
        }
    }

    @Test(arguments: Machine.levels, OperandFormat.allCases)
    func everyHeadDimMatchesDoublePrecision(level: KernelLevel, format: OperandFormat) {
        let pool = Machine.pool(level, threads: 2)
        for headDim in [1, 2, 7, 8, 15, 16, 17, 24, 32, 48, 64, 80, 96, 128, 160, 200] {
            let scene = Scene(
                lengths: [35, 1, 18], headCount: 4, kvHeadCount: 2, headDim: headDim,
                format: format)
            let scoring = AttentionScoring(scale: 1 / Float(headDim).squareRoot())
            let error = scene.error(
                of: scene.run(chunks: [9], scoring: scoring, pool: pool), scoring: scoring,
                level: level)
            #expect(error <= tolerance(scene.layout.format, level), "headDim \(headDim)")
        }
    }

    @Test(arguments: Machine.levels, [(1, 1), (6, 6), (9, 3), (7, 1), (71, 1), (64, 2)])
    func everyGroupingMatches(level: KernelLevel, heads: (Int, Int)) {
        let pool = Machine.pool(level, threads: 2)
        for format in OperandFormat.allCases {
            let scene = Scene(
                lengths: [70, 33], headCount: heads.0, kvHeadCount: heads.1, headDim: 20,
                format: format)
            let scoring = AttentionScoring(scale: 0.25)
            let error = scene.error(
                of: scene.run(chunks: [40], scoring: scoring, pool: pool), scoring: scoring,
                level: level)
            #expect(error <= tolerance(scene.layout.format, level))
        }
    }

    @Test(arguments: Machine.levels, [1, 2, 5, 16, 17, 40, 1000])
    func slidingWindowsMatch(level: KernelLevel, window: Int) {
        let pool = Machine.pool(level, threads: 2)
        let scene = Scene(
            lengths: [100, 17], headCount: 4, kvHeadCount: 2, headDim: 24, format: .bf16)
        let scoring = AttentionScoring(scale: 0.3, slidingWindow: window)
        let error = scene.error(
            of: scene.run(chunks: [33, 1, 8], scoring: scoring, pool: pool), scoring: scoring,
            level: level)
        #expect(error <= tolerance(scene.layout.format, level))
    }

    @Test(arguments: Machine.levels)
    func softcapMatches(level: KernelLevel) {
        let pool = Machine.pool(level)
        let scene = Scene(lengths: [50], headCount: 2, kvHeadCount: 1, headDim: 32, format: .f32)
        let scoring = AttentionScoring(scale: 1, softcap: 5)
        let error = scene.error(
            of: scene.run(chunks: [50], scoring: scoring, pool: pool), scoring: scoring,
            level: level)
        #expect(error <= tolerance(scene.layout.format, level))
    }

    /// The bits of every row, whatever the chunks, the other sequences and the threads.
    @Test(arguments: Machine.levels, OperandFormat.allCases)
    func bitsDependNeitherOnChunksNorOnThreads(level: KernelLevel, format: OperandFormat) {
        for (headCount, kvHeadCount, headDim) in [(2, 2, 16), (8, 2, 64), (9, 3, 40)] {
            for window in [nil, 21] {
                let scoring = AttentionScoring(scale: 0.2, slidingWindow: window)
                let scene = Scene(
                    lengths: [150, 40, 97], headCount: headCount, kvHeadCount: kvHeadCount,
                    headDim: headDim, format: format)
                let alone = scene.run(
                    chunks: [1], scoring: scoring, pool: Machine.pool(level, threads: 1))
                for threads in 1...3 {
                    let pool = Machine.pool(level, threads: threads)
                    for chunks in [[1000], [64], [16], [7], [1, 50, 3], [31, 2], [150, 1]] {
                        let result = scene.run(chunks: chunks, scoring: scoring, pool: pool)
                        #expect(
                            result.map(bits) == alone.map(bits),
                            "chunks \(chunks), \(threads) threads, headDim \(headDim)")
                    }
                }
            }
        }
    }

    @Test(arguments: OperandFormat.allCases)
    func fusedLevelsGiveTheSameBits(format: OperandFormat) {
        let scene = Scene(
            lengths: [90, 5], headCount: 6, kvHeadCount: 2, headDim: 72, format: format)
        let alike = Machine.fusedLevels.filter { format != .bf16 || $0 != .avx512BF16 }
        let results = alike.map { level in
            scene.run(
                chunks: [23], scoring: AttentionScoring(scale: 0.2), pool: Machine.pool(level)
            ).map(bits)
        }
        #expect(Set(results).count <= 1)
    }
}
