import ArgumentParser
import Foundation
import LorryBench
import LorryModel
import LorryTensor
import LorryText

/// `lorry bench quality`: what a weight format costs in the model's predictions.
struct BenchQualityCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quality",
        abstract: "Compare predictions in other weight formats with those in f32.",
        discussion: """
            Computes a text with f32 weights, keys and values, and with each format of --weights \
            as it is served, and compares the log-probabilities of each next token. The text is \
            cut into windows that are computed by themselves. Without --text the tokens are \
            random, which only tells how far results differ, not how much worse they are.
            """)

    @Option(help: "A model folder in Hugging Face format.", completion: .directory)
    var model: String
    @Option(
        help: """
            Formats to compare, separated by commas: \
            \(WeightFormat.allCases.map(\.rawValue).joined(separator: ", ")).
            """)
    var weights = "bf16,int8,int4"
    @Option(
        help: """
            How keys and values are held: \
            \(OperandFormat.allCases.map(\.rawValue).joined(separator: ", ")). (default: as the \
            format is served)
            """)
    var kvCache: String?
    @Option(help: "A text in UTF-8.", completion: .file())
    var text: String?
    @Option(help: "Tokens to use at most.")
    var tokens = 2048
    @Option(help: "Tokens of a window.")
    var window = 256
    @Option(help: "Compute threads; the machine's physical cores unless given.")
    var threads: Int?
    @Option(help: "The same seed gives the same random tokens.")
    var seed: UInt64 = 0
    @Option(help: "Writes every figure to this file.", completion: .file())
    var json: String?

    struct Report: Encodable {
        struct Row: Encodable {
            var weights: String
            var kvCache: String
            var bytes: Int
            var figures: QualityBench.Figures
        }

        var model: String
        /// Nil for random tokens.
        var text: String?
        var window: Int
        var level: String
        var rows: [Row] = []
    }

    func validate() throws {
        try BenchCommand.checkWritable(json, as: "--json")
        for (name, value) in [("--tokens", tokens), ("--window", window)]
        where value < 2 || value > 1 << 24 {
            throw ValidationError("\(name): \(value) is not between 2 and \(1 << 24)")
        }
        _ = try formats()
        _ = try operands()
    }

    func run() async throws {
        do {
            try measure()
        } catch {
            FileHandle.standardError.write(Data("lorry bench quality: \(error)\n".utf8))
            throw ExitCode.failure
        }
    }

    private func formats() throws -> [WeightFormat] {
        try weights.split(separator: ",").map { name in
            guard let format = WeightFormat(rawValue: String(name)) else {
                throw ValidationError("--weights: '\(name)' is no weight format")
            }
            return format
        }
    }

    private func operands() throws -> OperandFormat? {
        guard let kvCache else { return nil }
        guard let format = OperandFormat(rawValue: kvCache) else {
            throw ValidationError("--kv-cache: '\(kvCache)' is no format of keys and values")
        }
        return format
    }

    private func measure() throws {
        let workers = try BenchCommand.pool(
            threadCount: threads, level: BenchCommand.level(named: nil))
        let reference = try load(.f32, workers)
        let length = min(window, reference.contextLength)
        let windows = try windows(length, of: reference)
        var report = Report(
            model: URL(filePath: model).standardizedFileURL.lastPathComponent, text: text,
            window: length, level: workers.level.rawValue)
        for format in try formats() {
            let compared = try load(format, workers)
            let operands = try operands() ?? format.operandFormat
            let bench = try QualityBench(
                reference: reference, model: compared, operands: operands,
                windowTokenCount: length, pool: workers)
            let bar = ProgressBar(label: "comparing \(format.rawValue)")
            let figures = try bench.compare(windows) { bar.update($0) }
            bar.finish()
            report.rows.append(
                .init(
                    weights: format.rawValue, kvCache: operands.rawValue,
                    bytes: compared.byteCount, figures: figures))
        }
        Self.show(report)
        try BenchCommand.write(report, to: json)
    }

    private func load(_ format: WeightFormat, _ workers: WorkerPool) throws -> DecoderModel {
        let bar = ProgressBar(label: "loading \(format.rawValue)")
        defer { bar.finish() }
        return try DecoderModel(directory: URL(filePath: model), format: format, pool: workers) {
            bar.update($0)
        }
    }

    private func windows(_ length: Int, of model: DecoderModel) throws -> [[Int32]] {
        var ids: [Int32]
        if let text {
            guard let data = FileManager.default.contents(atPath: text) else {
                throw StartError("--text \(text): cannot be read")
            }
            ids = try Tokenizer(directory: URL(filePath: self.model))
                .encode(String(decoding: data, as: UTF8.self), addSpecialTokens: true)
        } else {
            ids = QualityBench.randomTokens(
                count: tokens, vocabularySize: model.configuration.vocabularySize, seed: seed)
        }
        ids = Array(ids.prefix(tokens))
        let windows = stride(from: 0, to: ids.count, by: length)
            .map { Array(ids[$0..<min($0 + length, ids.count)]) }.filter { $0.count > 1 }
        guard !windows.isEmpty else { throw StartError("the text has less than two tokens") }
        return windows
    }

    private static func show(_ report: Report) {
        var table = TextTable([
            ("weights", .left), ("kv", .left), ("MB", .right), ("mean |Δ log p|", .right),
            ("max |Δ log p|", .right), ("KL, nats", .right), ("same top token", .right),
            ("perplexity", .right), ("in f32", .right),
        ])
        for row in report.rows {
            table.add([
                row.weights, row.kvCache, Figures.significant(Double(row.bytes) / 1e6),
                Figures.significant(row.figures.meanDifference),
                Figures.significant(row.figures.maximumDifference),
                Figures.significant(row.figures.meanDivergence),
                Figures.percent(row.figures.topAgreement),
                String(format: "%.3f", row.figures.perplexity),
                String(format: "%.3f", row.figures.referencePerplexity),
            ])
        }
        let count = report.rows.first?.figures.tokens ?? 0
        print("\(report.model), \(count) tokens predicted, windows of \(report.window)")
        for line in table.lines { print(line) }
    }
}
