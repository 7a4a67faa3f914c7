import Foundation
import LorryBench
import LorryModel
import LorryTensor
import Testing

@Suite struct QualityBenchTests {
    private static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "lorryTests/Fixtures/llama/base")
    private let workers = WorkerPool(threadCount: 2)
    private let windows: [[Int32]]

    init() {
        let tokens = QualityBench.randomTokens(count: 200, vocabularySize: 64, seed: 3)
        windows = [Array(tokens[..<100]), Array(tokens[100..<150]), Array(tokens[150...])]
    }

    private func model(_ format: WeightFormat) throws -> DecoderModel {
        try DecoderModel(directory: Self.folder, format: format, pool: workers)
    }

    private func compare(
        _ format: WeightFormat, _ operands: OperandFormat? = nil
    ) throws -> QualityBench.Figures {
        try QualityBench(
            reference: model(.f32), model: model(format), operands: operands,
            windowTokenCount: 100, pool: workers
        ).compare(windows)
    }

    @Test func aModelEqualsItself() throws {
        let figures = try compare(.f32)
        #expect(figures.tokens == 197)
        #expect(figures.meanDifference == 0 && figures.maximumDifference == 0)
        #expect(figures.meanDivergence == 0)
        #expect(figures.topAgreement == 1)
        #expect(figures.perplexity == figures.referencePerplexity)
    }

    @Test func fewerBitsDifferMore() throws {
        let formats: [(WeightFormat, Double)] = [(.bf16, 0.05), (.int8, 0.1), (.int4, 1)]
        var last = 0.0
        for (format, bound) in formats {
            let figures = try compare(format)
            #expect(figures.meanDifference > 0 && figures.meanDifference < bound, "\(format)")
            #expect(figures.maximumDifference >= figures.meanDifference)
            #expect(figures.meanDivergence > 0)
            #expect(figures.topAgreement > 0.5)
            if format != .bf16 {
                #expect(figures.meanDifference > last)
                last = figures.meanDifference
            }
        }
        // Keys and values alone.
        let figures = try compare(.f32, .bf16)
        #expect(figures.meanDifference > 0 && figures.meanDifference < 0.05)
    }

    /// Against perplexity worked out from the logits by hand.
    @Test func perplexityIsThatOfTheText() throws {
        let model = try model(.f32)
        let layout = KVLayout(
            layerCount: model.configuration.layerCount,
            kvHeadCount: model.configuration.kvHeadCount, headDim: model.configuration.headDim,
            format: .f32)
        let forward = ForwardPass(
            model: model, kvLayout: layout, maximumRowCount: 64, pool: workers)
        let arena = AlignedBuffer<UInt8>(count: 4 * layout.blockByteCount)
        var batch = ForwardBatch()
        let tokens = windows[1]
        batch.append(
            tokens: tokens[...], startPosition: 0, blockTable: [0, 1, 2, 3], program: nil,
            logits: tokens.indices)
        forward.run(batch, arena: UnsafeMutableRawPointer(arena.pointer))
        let width = model.configuration.vocabularySize
        let mean = forward.withLogits(of: 0..<49) { logits in
            (0..<49).reduce(0.0) { sum, row in
                let row = (logits: logits.row(row), next: Int(tokens[row + 1]))
                let total = (0..<width).reduce(0.0) { $0 + exp(Double(row.logits[$1])) }
                return sum + Double(row.logits[row.next]) - log(total)
            } / 49
        }
        let figures = try QualityBench(
            reference: model, model: model, windowTokenCount: 64, pool: workers
        ).compare([tokens])
        #expect(abs(figures.referencePerplexity - exp(-mean)) < 1e-6 * exp(-mean))
    }

    @Test func badWindowsAreRefused() throws {
        let model = try model(.f32)
        let bench = try QualityBench(
            reference: model, model: model, windowTokenCount: 8, pool: workers)
        for window: [Int32] in [[], [1], [1, -1], [1, 1 << 30], Array(repeating: 1, count: 9)] {
            #expect(throws: BenchError.self) { try bench.compare([window]) }
        }
        #expect(throws: BenchError.self) { try bench.compare([]) }
        #expect(throws: BenchError.self) {
            try QualityBench(
                reference: model, model: model, windowTokenCount: model.contextLength + 1,
                pool: workers)
        }
    }
}
