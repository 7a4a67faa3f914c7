import ArgumentParser
import Foundation
import Logging
import LorryConfiguration

/// `lorry serve`: the server.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve a model and its adapters over HTTP.",
        discussion: """
            Every flag can also be given as the environment variable LORRY_<NAME> (LORRY_PORT for \
            --port) or as a key of the YAML file named by --config; a flag wins over the \
            environment, the environment over the file. Prints one line on standard output when it \
            is ready; SIGTERM or SIGINT ends it once running requests have ended.
            """)

    @Option(help: "A model folder in Hugging Face format (default: the bundled example).")
    var model: String?
    @Option(help: "What clients call the base model (default: the folder's name).")
    var modelName: String?
    @Option(help: "A folder whose sub-folders are PEFT adapters to register at start.")
    var adapters: String?
    @Flag(help: "End the start where an adapter of --adapters is refused.")
    var strictAdapters = false
    @Option(help: "Where adapters are kept (default: $XDG_STATE_HOME/lorry or ~/.local/state/lorry).")
    var stateDir: String?
    @Option(help: "The address to listen on (default: 127.0.0.1).")
    var host: String?
    @Option(help: "The port; 0 takes a free one (default: 8080).")
    var port: String?
    @Option(help: "A PEM file with the certificate chain; turns TLS on.")
    var tlsCert: String?
    @Option(help: "A PEM file with the certificate's private key.")
    var tlsKey: String?
    @Option(help: "How weights are held: f32 or bf16 (default: bf16 where the file has 16 bits).")
    var weights: String?
    @Option(help: "Compute threads (default: the physical cores).")
    var threads: String?
    @Option(help: "Memory for KV blocks and resident adapters, as in 4GiB (default: most of what is free).")
    var memoryBudget: String?
    @Option(help: "Most tokens that a step computes.")
    var maxBatchTokens: String?
    @Option(help: "Most sequences that run at a time.")
    var maxRunning: String?
    @Option(help: "Most sequences that wait; further requests get 429.")
    var maxWaiting: String?
    @Option(help: "Most tokens of a prompt and its answer (default: the model's).")
    var maxContext: String?
    @Option(help: "A YAML file with API keys; without it only loopback addresses may be bound.")
    var apiKeys: String?
    @Flag(help: "Bind other addresses without API keys.")
    var allowUnauthenticated = false
    @Option(help: "Folders, separated by ':', below which requests may name adapters by path.")
    var allowedAdapterRoot: String?
    @Option(help: "How long running requests may take after SIGTERM, as in 30s.")
    var drainTimeout: String?
    @Option(help: "text or json.")
    var logFormat: String?
    @Option(help: "trace, debug, info, notice, warning, error or critical.")
    var logLevel: String?
    @Option(help: "A YAML file with any of these settings.")
    var config: String?

    func run() async throws {
        do {
            let settings = try resolve()
            let logger = Self.bootstrapLogging(settings)
            try await ServeAssembly(settings: settings, logger: logger).run()
        } catch let error as ExitCode {
            throw error
        } catch {
            FileHandle.standardError.write(Data("lorry serve: \(error)\n".utf8))
            throw ExitCode.failure
        }
    }

    private func resolve() throws -> ServeSettings {
        let environment = ProcessInfo.processInfo.environment
        var file: (name: String, text: String)?
        if let path = config ?? environment["LORRY_CONFIG"], !path.isEmpty {
            guard let data = FileManager.default.contents(atPath: path) else {
                throw StartError("--config: \(path) cannot be read")
            }
            file = (path, String(decoding: data, as: UTF8.self))
        }
        return try SettingsResolver(flags: flags, environment: environment, file: file).settings()
    }

    private var flags: [ServeOption: String] {
        let given: [ServeOption: String?] = [
            .model: model, .modelName: modelName, .adapters: adapters,
            .strictAdapters: strictAdapters ? "true" : nil, .stateDirectory: stateDir,
            .host: host, .port: port, .tlsCertificate: tlsCert, .tlsKey: tlsKey,
            .weights: weights, .threads: threads, .memoryBudget: memoryBudget,
            .maximumBatchTokens: maxBatchTokens, .maximumRunning: maxRunning,
            .maximumWaiting: maxWaiting, .maximumContext: maxContext, .apiKeys: apiKeys,
            .allowUnauthenticated: allowUnauthenticated ? "true" : nil,
            .allowedAdapterRoot: allowedAdapterRoot, .drainTimeout: drainTimeout,
            .logFormat: logFormat, .logLevel: logLevel,
        ]
        return given.compactMapValues { $0 }
    }

    private static func bootstrapLogging(_ settings: ServeSettings) -> Logger {
        let level = Logger.Level(rawValue: settings.logLevel) ?? .info
        LoggingSystem.bootstrap { label in
            LineLogHandler(label: label, format: settings.logFormat, level: level)
        }
        return Logger(label: "lorry")
    }
}
