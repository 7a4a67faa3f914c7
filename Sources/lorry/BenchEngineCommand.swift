import ArgumentParser
import Foundation
import LorryBench
import LorryModel
import LorryTensor

/// `lorry bench engine`: whole steps of the engine, without HTTP.
struct BenchEngineCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "engine",
        abstract: "Measure prefill and decode of the engine, without HTTP.",
        discussion: """
            Submits --batch requests with random prompts at once. Prefill is the time until all \
            have their first token, where each ends with it; decode are the steps in which every \
            request computes one token. With --adapters the base alone is measured beside the \
            mixed batch, in turn and in one process. Token rates and shares are medians over \
            --repeat rounds; what memory gives is measured before and after each.
            """)

    @Option(help: "A model folder in Hugging Face format.", completion: .directory)
    var model: String
    @Option(help: "\(WeightFormat.allCases.map(\.rawValue).joined(separator: ", ")).")
    var weights: String?
    @Option(help: "A folder of PEFT adapters.", completion: .directory)
    var adapters: String?
    @Option(help: "How adapters are held: \(operandFormats); by the weights unless given.")
    var adapterWeights: String?
    @Option(help: "How keys and values are held: \(operandFormats); by the weights unless given.")
    var kvCache: String?
    @Option(
        help: """
            How requests spread over adapters: distinct (each its own), identical (all one), \
            uniform (over the square root of their number), zipf (the i-th has a share of 1/i), \
            skewed (each 1.5 times as popular as the next).
            """)
    var popularity = "distinct"
    @Option(help: "Requests at once.")
    var batch: Int
    @Option(help: "Tokens of each prompt.")
    var promptTokens: Int
    @Option(help: "Tokens of each answer.")
    var outputTokens: Int
    @Option(help: "Compute threads; the machine's physical cores unless given.")
    var threads: Int?
    @Option(help: "Most tokens that a step computes; the server's default unless given.")
    var maxBatchTokens: Int?
    @Option(name: .customLong("repeat"), help: "Rounds.")
    var repeatCount = 1
    @Option(help: "The same seed gives the same prompts and assignment.")
    var seed: UInt64 = 0
    @Option(help: "Writes every figure to this file.", completion: .file())
    var json: String?

    private static let operandFormats = OperandFormat.allCases.map(\.rawValue)
        .joined(separator: ", ")

    func validate() throws {
        for (name, value) in [("--adapter-weights", adapterWeights), ("--kv-cache", kvCache)] {
            guard let value, OperandFormat(rawValue: value) == nil else { continue }
            throw ValidationError("\(name): '\(value)' is none of \(Self.operandFormats)")
        }
        try BenchCommand.checkWritable(json, as: "--json")
        for (name, value) in [
            ("--batch", batch), ("--prompt-tokens", promptTokens),
            ("--output-tokens", outputTokens), ("--repeat", repeatCount),
            ("--max-batch-tokens", maxBatchTokens ?? 1),
        ] where value < 1 || value > 1 << 24 {
            throw ValidationError("\(name): \(value) is not between 1 and \(1 << 24)")
        }
        guard Popularity(rawValue: popularity) != nil else {
            let names = Popularity.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--popularity: '\(popularity)' is none of \(names)")
        }
        if let weights, WeightFormat(rawValue: weights) == nil {
            let names = WeightFormat.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--weights: '\(weights)' is none of \(names)")
        }
    }

    func run() async throws {
        do {
            try await measure()
        } catch {
            FileHandle.standardError.write(Data("lorry bench engine: \(error)\n".utf8))
            throw ExitCode.failure
        }
    }

    private func measure() async throws {
        let workers = try BenchCommand.pool(
            threadCount: threads, level: BenchCommand.level(named: nil))
        let limits = BenchCommand.measureLimits(workers)
        let bar = ProgressBar(label: "loading")
        let loaded = try DecoderModel(
            directory: URL(filePath: model),
            format: weights.flatMap { WeightFormat(rawValue: $0) }, pool: workers
        ) { bar.update($0) }
        bar.finish()
        let workload = EngineBench.Workload(
            batch: batch, promptTokenCount: promptTokens, outputTokenCount: outputTokens,
            popularity: Popularity(rawValue: popularity) ?? .distinct, seed: seed)
        let formats = EngineBench.OperandFormats(
            model: loaded, adapters: adapterWeights.flatMap { OperandFormat(rawValue: $0) },
            kv: kvCache.flatMap { OperandFormat(rawValue: $0) })
        let found =
            try adapters.map { try findAdapters($0, loaded, formats.adapters, workload) } ?? []
        let bench = try EngineBench(
            model: loaded, formats: formats, adapters: found, workload: workload,
            maximumBatchTokenCount: maxBatchTokens, limits: LimitMeter(measuringFrom: limits),
            workers: workers)
        let measurement = try await bench.measure(repeatCount: repeatCount) { what in
            FileHandle.standardError.write(Data("\(what) …\n".utf8))
        }
        await bench.shutdown()
        let setting = EngineReport.Setting(
            model: URL(filePath: model).lastPathComponent, weights: loaded.format.rawValue,
            formats: formats, level: workers.level.rawValue, threads: workers.threadCount,
            workload: workload,
            maxBatchTokens: bench.maximumBatchTokenCount, repeatCount: repeatCount,
            adapters: Array(found.prefix(bench.adapterCount)))
        let report = EngineReport(
            setting: setting, limits: LimitsReport(limits), measurement: measurement)
        Self.show(report)
        try BenchCommand.write(report, to: json)
    }

    private func findAdapters(
        _ path: String, _ model: DecoderModel, _ format: OperandFormat,
        _ workload: EngineBench.Workload
    ) throws -> [BenchAdapter] {
        let needed = workload.popularity.counts(requestCount: workload.batch).count
        let found = try BenchAdapter.all(
            in: URL(filePath: path), model: model, format: format, count: needed)
        guard !found.isEmpty else { throw StartError("--adapters \(path): has no adapters") }
        return found
    }

    private static func show(_ report: EngineReport) {
        let setting = report.setting
        print(
            "\(setting.model), \(setting.weights): \(setting.batch) requests, "
                + "\(setting.promptTokens) tokens in, \(setting.outputTokens) out, "
                + "\(setting.maxBatchTokens) tokens per step")
        if setting.adapterCount > 0 {
            let mebibytes = Double(setting.adapterBytes) / Double(1 << 20)
            let count = setting.adapterCount == 1 ? "1 adapter" : "\(setting.adapterCount) adapters"
            print("\(count), \(Figures.significant(mebibytes)) MiB")
        }
        for line in report.table.lines { print(line) }
        let figures = report.figures
        print(
            "decode step: plan \(Figures.duration(figures.decodePlanSeconds)), "
                + "run \(Figures.duration(figures.decodeRunSeconds)), "
                + "commit \(Figures.duration(figures.decodeCommitSeconds)); limits: reading "
                + "\(Figures.duration(figures.decodeReadingSeconds)), computing "
                + "\(Figures.duration(figures.decodeComputingSeconds))")
        let rates = Samples(report.readBytesPerSecond)
        print(
            "memory beside the rounds: \(Figures.significant(rates.percentile(0) / 1e9)) to "
                + "\(Figures.significant(rates.percentile(1) / 1e9)) GB/s, median "
                + Figures.significant(rates.median / 1e9))
    }
}
