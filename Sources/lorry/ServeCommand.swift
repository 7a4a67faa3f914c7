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
            is ready; SIGTERM or SIGINT ends it once running requests have ended, a second one \
            at once.
            """)

    @Option(help: Self.help(.model)) var model: String?
    @Option(help: Self.help(.modelName)) var modelName: String?
    @Option(help: Self.help(.adapters)) var adapters: String?
    @Flag(help: Self.help(.strictAdapters)) var strictAdapters = false
    @Option(help: Self.help(.allowedAdapterRoot)) var allowedAdapterRoot: [String] = []
    @Option(help: Self.help(.stateDirectory)) var stateDir: String?
    @Option(help: Self.help(.host)) var host: String?
    @Option(help: Self.help(.port)) var port: String?
    @Option(help: Self.help(.tlsCertificate)) var tlsCert: String?
    @Option(help: Self.help(.tlsKey)) var tlsKey: String?
    @Option(help: Self.help(.weights)) var weights: String?
    @Option(help: Self.help(.weightCache)) var weightCache: String?
    @Option(help: Self.help(.adapterWeights)) var adapterWeights: String?
    @Option(help: Self.help(.kvCache)) var kvCache: String?
    @Option(help: Self.help(.prefixCache)) var prefixCache: String?
    @Option(help: Self.help(.threads)) var threads: String?
    @Option(help: Self.help(.memoryBudget)) var memoryBudget: String?
    @Option(help: Self.help(.maxBatchTokens)) var maxBatchTokens: String?
    @Option(help: Self.help(.maxRunning)) var maxRunning: String?
    @Option(help: Self.help(.maxWaiting)) var maxWaiting: String?
    @Option(help: Self.help(.maxWaitingTokens)) var maxWaitingTokens: String?
    @Option(help: Self.help(.stepTarget)) var stepTarget: String?
    @Option(help: Self.help(.maxContext)) var maxContext: String?
    @Option(help: Self.help(.apiKeys)) var apiKeys: String?
    @Flag(help: Self.help(.allowUnauthenticated)) var allowUnauthenticated = false
    @Option(help: Self.help(.maxConnections)) var maxConnections: String?
    @Option(help: Self.help(.maxConnectionsPerAddress)) var maxConnectionsPerAddress: String?
    @Option(help: Self.help(.drainTimeout)) var drainTimeout: String?
    @Option(help: Self.help(.logFormat)) var logFormat: String?
    @Option(help: Self.help(.logLevel)) var logLevel: String?
    @Option(help: "A YAML file with any of these settings.") var config: String?

    private static func help(_ setting: ServeSetting) -> ArgumentHelp { ArgumentHelp(setting.help) }

    func run() async throws {
        do {
            let settings = try resolve()
            let logger = Self.bootstrapLogging(settings)
            for warning in settings.warnings { logger.warning("\(warning)") }
            try await ServeAssembly(settings: settings, logger: logger).run()
        } catch {
            FileHandle.standardError.write(Data("lorry serve: \(error)\n".utf8))
            throw ExitCode.failure
        }
    }

    private func resolve() throws -> ServeConfiguration {
        let environment = ProcessInfo.processInfo.environment
        let path = config ?? environment[ServeSetting.configEnvironmentName]
        let file = try path.flatMap { try $0.isEmpty ? nil : ConfigurationFile(path: $0) }
        return try .resolve(flags: flags, environment: environment, file: file)
    }

    private var flags: [ServeSetting: [String]] {
        let values: [ServeSetting: String?] = [
            .model: model, .modelName: modelName, .adapters: adapters, .stateDirectory: stateDir,
            .host: host, .port: port, .tlsCertificate: tlsCert, .tlsKey: tlsKey,
            .weights: weights, .weightCache: weightCache, .adapterWeights: adapterWeights,
            .kvCache: kvCache, .prefixCache: prefixCache, .threads: threads,
            .memoryBudget: memoryBudget,
            .maxBatchTokens: maxBatchTokens, .maxRunning: maxRunning, .maxWaiting: maxWaiting,
            .maxWaitingTokens: maxWaitingTokens, .stepTarget: stepTarget,
            .maxContext: maxContext, .apiKeys: apiKeys, .drainTimeout: drainTimeout,
            .maxConnections: maxConnections, .maxConnectionsPerAddress: maxConnectionsPerAddress,
            .logFormat: logFormat, .logLevel: logLevel,
        ]
        var flags = values.compactMapValues { $0.map { [$0] } }
        if strictAdapters { flags[.strictAdapters] = ["true"] }
        if allowUnauthenticated { flags[.allowUnauthenticated] = ["true"] }
        if !allowedAdapterRoot.isEmpty { flags[.allowedAdapterRoot] = allowedAdapterRoot }
        return flags
    }

    private static func bootstrapLogging(_ settings: ServeConfiguration) -> Logger {
        let level = Logger.Level(rawValue: settings.logLevel.rawValue) ?? .info
        LoggingSystem.bootstrap { label in
            LineLogHandler(label: label, format: settings.logFormat, level: level)
        }
        return Logger(label: "lorry")
    }
}
