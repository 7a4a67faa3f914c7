import Foundation
import LorryBench
import LorryModel
import LorrySynth
import LorryTensor
import Testing

/// A model of two small layers and adapters for it, in a folder that goes with the test.
private final class SmallModel {
    let folder: URL
    let pool = WorkerPool(threadCount: 2)
    let model: DecoderModel

    init(adapterCount: Int) async throws {
        folder = FileManager.default.temporaryDirectory.appending(path: "bench-\(UUID())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let shape = ModelShape(
            name: "small", hiddenSize: 32, layerCount: 2, heads: (4, 2, 8), intermediateSize: 48,
            vocabularySize: 512, positions: (256, 10_000))
        let directory = folder.appending(path: "model")
        try await SyntheticModel.write(shape: shape, to: directory, seed: 1)
        try await SyntheticAdapters.write(
            modelDirectory: directory, count: adapterCount, ranks: [4], targets: ["all"],
            to: folder.appending(path: "adapters"), seed: 1)
        model = try DecoderModel(directory: directory, format: .bf16, pool: pool)
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    func adapters(_ count: Int) throws -> [BenchAdapter] {
        try BenchAdapter.all(
            in: folder.appending(path: "adapters"), model: model, format: .bf16, count: count)
    }

    func bench(
        _ workload: EngineBench.Workload, adapterCount: Int, kv: OperandFormat = .bf16,
        rate: @escaping () -> Double = { 10 }
    ) throws -> EngineBench {
        try EngineBench(
            model: model, formats: .init(model: model, kv: kv),
            adapters: try adapters(adapterCount), workload: workload,
            maximumBatchTokenCount: 24,
            limits: LimitMeter(smallLimits, readBytesPerSecond: rate), workers: pool)
    }
}

struct EngineBenchTests {
    @Test func measuresBothPhasesOfBaseAndMixedBatch() async throws {
        let small = try await SmallModel(adapterCount: 3)
        let workload = EngineBench.Workload(
            batch: 6, promptTokenCount: 20, outputTokenCount: 5, popularity: .uniform)
        let bench = try small.bench(workload, adapterCount: 3)
        #expect(bench.adapterCount == 3)
        let measurement = try await bench.measure(repeatCount: 2)
        await bench.shutdown()
        #expect(measurement.base.count == 2 && measurement.mixed.count == 2)
        for round in measurement.base + measurement.mixed {
            #expect(round.prefill.tokenCount == 120)
            // 24 tokens a step at most; each request may come too late to fill a step.
            #expect((5...11).contains(round.prefill.stepSeconds.sorted.count))
            #expect(round.prefill.firstTokenSeconds.sorted.count == 6)
            #expect(round.prefill.seconds > 0 && round.prefill.limitSeconds > 0)
            #expect(round.decode.steps.count == 4)
            #expect(round.decode.tokensPerSecond > 0 && round.decode.shareOfLimit > 0)
        }
        #expect(measurement.shareOfBase { $0.decode.tokensPerSecond } > 0)
    }

    @Test func decodeCountsWhatStepsMustDo() async throws {
        let small = try await SmallModel(adapterCount: 2)
        let workload = EngineBench.Workload(
            batch: 2, promptTokenCount: 9, outputTokenCount: 3, popularity: .distinct)
        let bench = try small.bench(workload, adapterCount: 2)
        let measurement = try await bench.measure(repeatCount: 1)
        await bench.shutdown()
        let adapters = try small.adapters(2)
        let (base, mixed) = (measurement.base[0].decode.steps, measurement.mixed[0].decode.steps)
        let weights = small.model.layerByteCount + small.model.headByteCount
        // Keys and values of 2 sequences: 2 layers x 2 heads x 8 x 2 bytes x 2 per position.
        let keyValueBytes = base[0].byteCount - Double(weights)
        #expect(keyValueBytes.truncatingRemainder(dividingBy: 2 * 128) == 0)
        #expect(keyValueBytes >= 2 * 128 * 10 && keyValueBytes <= 2 * 128 * 60)
        let adapterBytes = adapters.reduce(0) { $0 + $1.cost.byteCount }
        // The two runs may begin to decode together at lengths that differ.
        let difference = mixed[0].byteCount - base[0].byteCount - Double(adapterBytes)
        #expect(difference.truncatingRemainder(dividingBy: 2 * 128) == 0)
        #expect(base[1].byteCount == base[0].byteCount + 2 * 128)
    }

    /// Memory is slower each time that it is measured.
    @Test func limitsAreThoseAroundTheRun() async throws {
        let small = try await SmallModel(adapterCount: 1)
        var rate = 0.0
        let bench = try small.bench(
            .init(batch: 1, promptTokenCount: 10, outputTokenCount: 3), adapterCount: 0
        ) {
            rate = rate == 0 ? 1 : rate / 2
            return rate
        }
        let measurement = try await bench.measure(repeatCount: 2)
        await bench.shutdown()
        for (round, rates) in zip(
            measurement.base, [[1, 0.5, 0.25], [0.125, 0.0625, 0.03125]])
        {
            #expect(round.readBytesPerSecond == rates)
            let steps = round.decode.steps
            #expect(steps.count == 2)
            for step in steps {
                #expect(step.readingSeconds == step.byteCount / ((rates[1] + rates[2]) / 2))
            }
        }
        // The prompts are the same, and reading bounds them.
        let limits = measurement.base.map(\.prefill.limitSeconds)
        #expect(abs(limits[1] / limits[0] - 8) < 1e-9)
        #expect(measurement.readBytesPerSecond.sorted == [0.03125, 0.0625, 0.125, 0.25, 0.5, 1])
    }

    @Test func int8KeysAndValuesAreReadWithTheirScales() async throws {
        let small = try await SmallModel(adapterCount: 1)
        let bench = try small.bench(
            .init(batch: 1, promptTokenCount: 10, outputTokenCount: 3), adapterCount: 0, kv: .int8)
        let measurement = try await bench.measure(repeatCount: 1)
        await bench.shutdown()
        let steps = measurement.base[0].decode.steps
        // A position more: 2 layers x 2 heads x (8 bytes and a scale) x 2.
        #expect(steps[1].byteCount - steps[0].byteCount == 2 * 2 * (8 + 4) * 2)
    }

    @Test func refusesWhatDoesNotFit() async throws {
        let small = try await SmallModel(adapterCount: 2)
        #expect(throws: BenchError.self) {
            _ = try small.bench(
                .init(batch: 4, promptTokenCount: 8, outputTokenCount: 2), adapterCount: 2)
        }
        #expect(throws: BenchError.self) {
            _ = try small.bench(
                .init(batch: 1, promptTokenCount: 250, outputTokenCount: 20), adapterCount: 0)
        }
        #expect(throws: BenchError.self) {
            _ = try small.bench(
                .init(batch: 24, promptTokenCount: 4, outputTokenCount: 2), adapterCount: 0)
        }
    }

    @Test func reportHasTheFiguresAtTheTop() async throws {
        let small = try await SmallModel(adapterCount: 1)
        let workload = EngineBench.Workload(
            batch: 2, promptTokenCount: 8, outputTokenCount: 3, popularity: .identical)
        let bench = try small.bench(workload, adapterCount: 1)
        let measurement = try await bench.measure(repeatCount: 1)
        await bench.shutdown()
        let report = EngineReport(
            setting: .init(
                model: "small", weights: "bf16", formats: .init(model: small.model, kv: .int8),
                level: "portable", threads: 2,
                workload: workload, maxBatchTokens: 24, repeatCount: 1,
                adapters: try small.adapters(1)),
            limits: LimitsReport(smallLimits), measurement: measurement)
        let object = try #require(
            JSONSerialization.jsonObject(with: JSONEncoder().encode(report)) as? [String: Any])
        for key in [
            "prefill_tokens_per_second", "decode_tokens_per_second", "prefill_share_of_limit",
            "decode_share_of_limit",
        ] {
            let figure = try #require(object[key] as? Double)
            let base = try #require((object["base"] as? [String: Any])?[key] as? Double)
            #expect(figure > 0 && base > 0)
        }
        #expect(object["popularity"] as? String == "identical")
        #expect(object["adapter_weights"] as? String == "bf16")
        #expect(object["kv_cache"] as? String == "int8")
        let share = try #require(object["share_of_base"] as? [String: Double])
        #expect(Set(share.keys) == ["prefill", "decode"])
        let limits = try #require(object["limits"] as? [String: Any])
        #expect(limits["read_bytes_per_second"] as? Double == 10)
        let beside = object["read_bytes_per_second_beside_rounds"] as? [Double]
        #expect(beside == [Double](repeating: 10, count: 6))
        #expect(report.table.lines.count == 4)
    }
}
