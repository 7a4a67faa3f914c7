import ArgumentParser
import Foundation
import LorryBench

/// `lorry bench load`: a server over HTTP, under a workload.
struct BenchLoadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "Load a running server over HTTP and time every token.",
        discussion: """
            slora sends requests at their times, whether the server keeps up or not: \
            rate x duration of them, with Gamma gaps (--cv) and adapters of a power law (--alpha). \
            punica keeps --in-flight requests under way for the duration, with adapters by \
            --popularity. --trace sends what a file says. Requests are greedy completions of \
            random token ids and of exact length. Ctrl-C ends a run early, with a report.
            """)

    @Option(help: "The server. Also LORRY_URL; http://127.0.0.1:8080 where neither is given.")
    var url: String?
    @Option(
        help: "An API key; several for several tenants, in their order. Also LORRY_API_KEY.")
    var apiKey: [String] = []
    @Option(help: "A file with the tenants' API keys, one a line.", completion: .file())
    var apiKeysFile: String?
    @Option(help: "Certificates to trust, in PEM format.", completion: .file()) var caFile: String?
    @Option(help: "HTTP version: 1 (a connection per request under way) or 2.") var http = 2
    @Option(help: "The base model's name; the server's first unless given.") var model: String?
    @Option(help: "Only adapters whose names begin so.") var adapterPrefix = ""
    @OptionGroup var work: LoadWork
    @Option(help: "Token ids in prompts are below this; asked of the server unless given.")
    var vocabularySize: Int?
    @Option(help: "Tokens with which every prompt begins, as far as it is so long.")
    var sharedPrefixTokens = 0
    @Option(help: "Seconds at the start of which requests do not count in percentiles.")
    var warmUp = 0.0
    @Option(help: "Seconds that answers may take after the last arrival; the rest is cancelled.")
    var drain: Double?
    @Option(help: "Seconds after which a request has failed.") var timeout = 600.0
    @Option(help: "Objective: seconds from arrival to the first token.") var sloFirstToken = 6.0
    @Option(help: "Objective: mean seconds between an answer's tokens.")
    var sloInterToken: Double?
    @Flag(help: "Send some requests again, alone, and compare their token ids.") var verify = false
    @Option(help: "How many requests --verify sends again.") var verifySample = 16
    @Option(help: "Writes every figure to this file.", completion: .file()) var json: String?
    @Option(help: "Writes a picture of the run to this file, in SVG.", completion: .file())
    var plot: String?

    func validate() throws {
        try BenchCommand.checkWritable(json, as: "--json")
        try BenchCommand.checkWritable(plot, as: "--plot")
        guard http == 1 || http == 2 else {
            throw ValidationError("--http: \(http) is neither 1 nor 2")
        }
        for (name, value) in [
            ("--shared-prefix-tokens", sharedPrefixTokens), ("--verify-sample", verifySample),
            ("--vocabulary-size", vocabularySize ?? 1),
        ] where value < 0 || value > 1 << 24 {
            throw ValidationError("\(name): \(value) is not between 0 and \(1 << 24)")
        }
        for (name, value) in [
            ("--warm-up", warmUp), ("--drain", drain ?? 0), ("--timeout", timeout),
            ("--slo-first-token", sloFirstToken), ("--slo-inter-token", sloInterToken ?? 0),
        ] where !(value >= 0 && value <= 1e6) {
            throw ValidationError("\(name): \(value) is not between 0 and 1000000 seconds")
        }
        try work.check()
    }

    func run() async throws {
        do {
            guard try await load() else { throw ExitCode.failure }
        } catch let error as ExitCode {
            throw error
        } catch {
            FileHandle.standardError.write(Data("lorry bench load: \(error)\n".utf8))
            throw ExitCode.failure
        }
    }

    /// - Returns: whether anything was answered, and answers alone were the same.
    private func load() async throws -> Bool {
        let keys = try LoadKeys.read(apiKey, file: apiKeysFile)
        let address = try AdapterPlace.address(url, keys.first, caFile)
        let source = try work.source()
        let models = try await ServedModels.ask(
            ServerClient(address: address), model: model, adapterPrefix: adapterPrefix,
            vocabularySize: vocabularySize)
        let adapters = try models.adapters(first: source.adapterCount)
        try models.check(longest: source.longestRequest)
        try work.writeTrace(source)
        let server = LoadServer(
            host: address.host, port: address.port, version: http == 1 ? .http1 : .http2,
            pathPrefix: address.pathPrefix,
            tls: address.isSecure ? try address.tlsConfiguration() : nil, apiKeys: keys)
        let bench = try LoadBench(
            server: server,
            prompts: .init(
                baseModel: models.base, adapters: adapters, vocabularySize: models.vocabularySize,
                sharedPrefixTokenCount: sharedPrefixTokens, seed: work.seed))
        var options = LoadOptions()
        options.inFlightLimit = work.inFlightBound
        options.requestTimeout = timeout
        options.drainSeconds = drain
        options.keepsTokens = verify
        let interrupt = InterruptSignal { bench.stop() }
        defer { interrupt.cancel() }
        let display = LoadDisplay()
        let result = try await bench.run(source.source, options) { display.show($0) }
        display.finish()
        var report = LoadReport(
            result, setting: setting(address, models, source),
            objective: ServiceObjective(
                firstTokenSeconds: sloFirstToken, interTokenSeconds: sloInterToken),
            warmUp: warmUp)
        if verify, !result.wasStopped {
            report.verification = try await verification(of: result, bench, options)
        }
        await bench.shutdown()
        for line in report.lines { print(line) }
        try BenchCommand.write(report, to: json)
        try writePlot(report)
        return report.requests.finished > 0 && report.verification?.isPassed ?? true
    }

    private func verification(
        of result: LoadResult, _ bench: LoadBench, _ options: LoadOptions
    ) async throws -> LoadVerification {
        let sample = LoadVerification.sample(of: result.ledger.records, count: verifySample)
        var options = options
        options.inFlightLimit = 1
        options.drainSeconds = nil
        FileHandle.standardError.write(Data("sending \(sample.count) requests alone …\n".utf8))
        let alone = try await bench.run(LoadVerification.replay(sample), options)
        return LoadVerification(sample, alone: alone.ledger.records)
    }

    private func setting(
        _ address: ServerAddress, _ models: ServedModels, _ source: LoadWork.Source
    ) -> LoadSetting {
        var setting = LoadSetting(
            url: address.description, http: http, workload: work.workloadName, model: models.base,
            adapters: source.adapterCount)
        work.describe(in: &setting)
        setting.sharedPrefixTokens = sharedPrefixTokens
        setting.vocabularySize = models.vocabularySize
        setting.warmUp = warmUp
        setting.drain = drain
        setting.timeout = timeout
        return setting
    }

    private func writePlot(_ report: LoadReport) throws {
        guard let plot else { return }
        do {
            try Data(LoadPlot.svg(report).utf8).write(to: URL(filePath: plot))
        } catch {
            throw StartError("--plot \(plot): cannot be written")
        }
    }
}

/// The API keys of tenants.
enum LoadKeys {
    static func read(_ keys: [String], file: String?) throws -> [String] {
        guard let file else {
            return keys.isEmpty
                ? ProcessInfo.processInfo.environment["LORRY_API_KEY"].map { [$0] } ?? [] : keys
        }
        guard let text = try? String(contentsOf: URL(filePath: file), encoding: .utf8) else {
            throw StartError("--api-keys-file \(file): cannot be read")
        }
        return keys
            + text.split(whereSeparator: \.isNewline).map {
                $0.trimmingCharacters(in: .whitespaces)
            }.filter { !$0.isEmpty && !$0.hasPrefix("#") }
    }
}

/// Shows how a run goes: a bar on a terminal, else a line now and then.
final class LoadDisplay: Sendable {
    private let bar = ProgressBar(label: "load")
    private let lines = ProgressLines(every: 5)

    func show(_ progress: LoadProgress) {
        let note =
            "\(Int(progress.seconds)) s: \(progress.inFlightCount) in flight, "
            + "\(progress.finishedCount) finished, \(progress.failedCount) failed, "
            + "\(Figures.significant(Double(progress.tokenCount) / max(progress.seconds, 0.001))) "
            + "tokens/s"
        bar.update(progress.share, note: note)
        if !bar.isTerminal { lines.show(note, at: progress.seconds) }
    }

    func finish() { bar.finish() }
}
