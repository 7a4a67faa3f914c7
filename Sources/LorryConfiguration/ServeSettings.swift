/// What `lorry serve` was told, from flags, environment and configuration file, checked and typed.
/// Nil leaves the choice to the machine or the model.
public struct ServeSettings: Sendable, Equatable {
    public enum WeightFormatName: String, Sendable, CaseIterable {
        case f32, bf16, int8, int4
    }
    public enum LogFormat: String, Sendable, CaseIterable {
        case text, json
    }
    public struct TLSFiles: Sendable, Equatable {
        public var certificateChain: String
        public var privateKey: String
    }

    public var model: String?
    public var modelName: String?
    public var adapters: String?
    public var isStrictAboutAdapters = false
    public var stateDirectory: String?
    public var host = "127.0.0.1"
    public var port = 8080
    public var tls: TLSFiles?
    public var weights: WeightFormatName?
    public var threadCount: Int?
    public var memoryBudgetByteCount: Int?
    public var maximumBatchTokenCount: Int?
    public var maximumRunningCount: Int?
    public var maximumWaitingCount: Int?
    public var maximumContextLength: Int?
    public var apiKeysFile: String?
    public var allowsUnauthenticated = false
    /// Folders below which requests may name adapters by path.
    public var allowedAdapterRoots: [String] = []
    public var drainTimeout: Duration = .seconds(30)
    public var logFormat = LogFormat.text
    public var logLevel = "info"

    public init() {}
}

/// A setting that is unknown or has a bad value; names where it came from.
public struct ConfigurationError: Error, CustomStringConvertible, Sendable, Equatable {
    public let description: String
    init(_ description: String) { self.description = description }
}
