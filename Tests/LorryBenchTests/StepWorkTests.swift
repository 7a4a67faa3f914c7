import LorryBench
import LorryTensor
import Testing

struct StepWorkTests {
    /// Two layers, the second with a window of 4 positions; 10 bytes per position and layer.
    private let cost = StepWork(
        layerByteCount: 1000, headByteCount: 500, tailByteCount: 400, layerParameterCount: 300,
        headParameterCount: 100, tailParameterCount: 120, weightArithmetic: .int8,
        adapterArithmetic: .bf16, attentionArithmetic: .bf16,
        positionByteCount: 10, queryWidth: 8, windows: [nil, 4])

    @Test func countsTheBase() {
        let work = cost.work([.init(sequence: 0, start: 0, count: 3, logitCount: 3)])
        #expect(work.operationCounts[.int8] == Double(2 * (300 + 100) * 3))
        // Rows see 1 + 2 + 3 positions in either layer.
        #expect(work.operationCounts[.bf16] == Double(2 * 4 * 8 * 6))
        #expect(work.byteCount == 1000 + 500 + 2 * 3 * 10)
    }

    @Test func onlyRowsWithLogitsMeetTheEnd() {
        let work = cost.work([.init(sequence: 0, start: 0, count: 3, logitCount: 1)])
        #expect(work.operationCounts[.int8] == Double(2 * (180 * 3 + (120 + 100) * 1)))
        #expect(work.operationCounts[.bf16] == Double(4 * 8 * (6 + 3)))
        #expect(work.byteCount == 1000 + 500 + 2 * 3 * 10)
    }

    @Test func leavesTheEndOutWhereNoLogitsAreWanted() {
        let work = cost.work([.init(sequence: 0, start: 0, count: 3, logitCount: 0)])
        #expect(work.byteCount == 1000 - 400 + 3 * 10)
        #expect(work.operationCounts[.int8] == Double(2 * 180 * 3))
        #expect(work.operationCounts[.bf16] == Double(4 * 8 * 6))
    }

    @Test func windowsBoundAttention() {
        // Spans of every place and length against counting position by position.
        for start in 0..<8 {
            for count in 1..<8 {
                let work = cost.work(
                    [.init(sequence: 0, start: start, count: count, logitCount: count)])
                let full = (start..<start + count).reduce(0) { $0 + $1 + 1 }
                let windowed = (start..<start + count).reduce(0) { $0 + min($1 + 1, 4) }
                #expect(work.operationCounts[.bf16] == Double(4 * 8 * (full + windowed)))
                let seen = start + count + (start + count - max(0, start - 3))
                #expect(work.byteCount == Double(1000 + 500 + 10 * seen))
            }
        }
    }

    @Test func readsASharedAdapterOnce() {
        let spans = (0..<4).map {
            StepWork.Span(sequence: $0, start: 9, count: 1, logitCount: 1)
        }
        let adapters = [
            StepWork.Adapter(byteCount: 70, parameterCount: 35),
            StepWork.Adapter(byteCount: 20, parameterCount: 10),
        ]
        let base = cost.work(spans)
        let mixed = cost.work(spans, assignment: [0, 1, 0, 0], adapters: adapters)
        #expect(mixed.byteCount - base.byteCount == 70 + 20)
        #expect(
            (mixed.operationCounts[.bf16] ?? 0) - (base.operationCounts[.bf16] ?? 0)
                == 2 * (3 * 35 + 10))
        #expect(mixed.operationCounts[.int8] == base.operationCounts[.int8])
    }

    @Test func theBaseRunsBesideAdapters() {
        let spans = (0..<3).map {
            StepWork.Span(sequence: $0, start: 9, count: 1, logitCount: 1)
        }
        let adapters = [StepWork.Adapter(byteCount: 70, parameterCount: 35)]
        let base = cost.work(spans)
        let mixed = cost.work(spans, assignment: [nil, 0, nil], adapters: adapters)
        #expect(mixed.byteCount - base.byteCount == 70)
        #expect(
            (mixed.operationCounts[.bf16] ?? 0) - (base.operationCounts[.bf16] ?? 0) == 2 * 35)
    }

    @Test func cutsPromptsIntoSteps() {
        let steps = StepWork.prefillSpans(
            tokenCounts: [7, 5, 3], promptTokenCount: 5, sequenceCount: 3)
        // A prompt ends in each.
        #expect(steps.map { $0.reduce(0) { $0 + $1.logitCount } } == [1, 1, 1])
        #expect(
            steps == [
                [
                    .init(sequence: 0, start: 0, count: 5, logitCount: 1),
                    .init(sequence: 1, start: 0, count: 2, logitCount: 0),
                ],
                [
                    .init(sequence: 1, start: 2, count: 3, logitCount: 1),
                    .init(sequence: 2, start: 0, count: 2, logitCount: 0),
                ],
                [.init(sequence: 2, start: 2, count: 3, logitCount: 1)],
            ])
    }
}
