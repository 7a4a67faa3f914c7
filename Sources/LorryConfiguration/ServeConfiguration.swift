/// Everything `lorry serve` can be told, resolved and checked. What is nil is chosen from the
/// machine and the model.
public struct ServeConfiguration: Sendable, Equatable {
    public enum WeightFormat: String, Sendable, CaseIterable {
        case f32, bf16, int8, int4
    }

    public enum OperandFormat: String, Sendable, CaseIterable {
        case f32, bf16, int8
    }

    public enum LogFormat: String, Sendable, CaseIterable {
        case text, json
    }

    /// swift-log's levels.
    public enum LogLevel: String, Sendable, CaseIterable {
        case trace, debug, info, notice, warning, error, critical
    }

    /// Nil: the bundled example.
    public var model: String?
    public var modelName: String?
    public var adapters: String?
    public var strictAdapters = false
    public var allowedAdapterRoots: [String] = []
    public var stateDirectory: String
    public var host = "127.0.0.1"
    public var port = 8080
    /// Both or neither.
    public var tlsCertificate: String?
    public var tlsKey: String?
    public var weights: WeightFormat?
    public var cachesWeights = true
    public var adapterWeights: OperandFormat?
    public var kvCache: OperandFormat?
    public var cachesPrefixes = true
    public var threadCount: Int?
    public var memoryBudgetByteCount: Int?
    public var maximumBatchTokenCount: Int?
    public var maximumRunningCount: Int?
    public var maximumWaitingCount: Int?
    public var maximumWaitingTokenCount: Int?
    public var stepTarget: Duration?
    public var maximumContextTokenCount: Int?
    public var apiKeys: String?
    public var allowUnauthenticated = false
    public var maximumConnectionCount: Int?
    public var maximumConnectionCountPerAddress: Int?
    public var drainTimeout = Duration.seconds(30)
    public var logFormat = LogFormat.text
    public var logLevel = LogLevel.info
    /// Sentences for the log about what was given and has no meaning.
    public var warnings: [String] = []

    /// The defaults.
    public init(stateDirectory: String) {
        self.stateDirectory = stateDirectory
    }

    /// Each setting by flag, `LORRY_<NAME>`, configuration file, default, in this order.
    /// - Parameters:
    ///   - flags: values as typed, in order; a switch that is given has the value `true`. Of a
    ///     setting that takes one value the last counts.
    ///   - environment: of the process; an empty variable counts as not set.
    ///   - file: the configuration file that ``ConfigurationFile`` has read, if any.
    /// - Throws: `ConfigurationError` naming the flag, variable or key, its value, and what it may
    ///   be.
    public static func resolve(
        flags: [ServeSetting: [String]], environment: [String: String],
        file: ConfigurationFile? = nil
    ) throws(ConfigurationError) -> ServeConfiguration {
        let source = LayeredSettings(flags: flags, environment: environment, file: file)
        var result = ServeConfiguration(stateDirectory: "")
        if let given = try source.text(.stateDirectory) {
            result.stateDirectory = given
        } else {
            result.stateDirectory = try defaultStateDirectory(environment)
        }
        result.model = try source.text(.model)
        result.modelName = try source.text(.modelName)
        result.adapters = try source.text(.adapters)
        result.strictAdapters = try source.flag(.strictAdapters)
        result.allowedAdapterRoots = try source.list(.allowedAdapterRoot)
        result.host = try source.text(.host) ?? result.host
        result.port = try source.number(.port, 0...65535) ?? result.port
        result.tlsCertificate = try source.text(.tlsCertificate)
        result.tlsKey = try source.text(.tlsKey)
        result.weights = try source.choice(.weights)
        result.cachesWeights = try source.flag(.weightCache, default: true)
        result.adapterWeights = try source.choice(.adapterWeights)
        result.kvCache = try source.choice(.kvCache)
        result.cachesPrefixes = try source.flag(.prefixCache, default: true)
        result.threadCount = try source.number(.threads, 1...1024)
        result.memoryBudgetByteCount = try source.byteCount(.memoryBudget)
        result.maximumBatchTokenCount = try source.number(.maxBatchTokens, 1...1_000_000)
        result.maximumRunningCount = try source.number(.maxRunning, 1...1_000_000)
        result.maximumWaitingCount = try source.number(.maxWaiting, 1...1_000_000)
        result.maximumWaitingTokenCount = try source.number(
            .maxWaitingTokens, 1...1_000_000_000)
        result.stepTarget = try source.duration(.stepTarget)
        if let target = result.stepTarget, target <= .zero {
            throw ConfigurationError("\(ServeSetting.stepTarget.rawValue): must be above 0")
        }
        result.maximumContextTokenCount = try source.number(.maxContext, 1...100_000_000)
        result.apiKeys = try source.text(.apiKeys)
        result.allowUnauthenticated = try source.flag(.allowUnauthenticated)
        result.maximumConnectionCount = try source.number(.maxConnections, 1...1_000_000)
        result.maximumConnectionCountPerAddress = try source.number(
            .maxConnectionsPerAddress, 1...1_000_000)
        result.drainTimeout = try source.duration(.drainTimeout) ?? result.drainTimeout
        result.logFormat = try source.choice(.logFormat) ?? result.logFormat
        result.logLevel = try source.choice(.logLevel) ?? result.logLevel
        result.warnings = source.warnings()
        try result.checkCombinations()
        return result
    }

    private func checkCombinations() throws(ConfigurationError) {
        if (tlsCertificate == nil) != (tlsKey == nil) {
            let (given, missing): (ServeSetting, ServeSetting) =
                tlsKey == nil ? (.tlsCertificate, .tlsKey) : (.tlsKey, .tlsCertificate)
            throw ConfigurationError("\(given.flag) needs \(missing.flag)")
        }
        if apiKeys == nil, !allowUnauthenticated, !Self.isLoopback(host) {
            throw ConfigurationError(
                "\(ServeSetting.host.flag) '\(host)' is reachable from other machines: give "
                    + "\(ServeSetting.apiKeys.flag) FILE, or "
                    + "\(ServeSetting.allowUnauthenticated.flag) if that is wanted")
        }
    }

    /// Names and addresses that only this machine reaches. A name is not looked up, since its
    /// answer may change before the socket is bound.
    static func isLoopback(_ host: String) -> Bool {
        if ["localhost", "::1", "[::1]"].contains(host.lowercased()) { return true }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }

    private static func defaultStateDirectory(
        _ environment: [String: String]
    ) throws(ConfigurationError) -> String {
        // A relative XDG path is to be ignored (XDG base directory specification 0.8).
        if let state = environment["XDG_STATE_HOME"], state.hasPrefix("/") {
            return state + "/lorry"
        }
        guard let home = environment["HOME"], !home.isEmpty else {
            throw ConfigurationError(
                "neither XDG_STATE_HOME nor HOME is set: give \(ServeSetting.stateDirectory.flag)")
        }
        return home + "/.local/state/lorry"
    }
}
