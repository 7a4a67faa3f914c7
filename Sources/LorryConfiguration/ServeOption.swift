/// A setting of `lorry serve`: one name for its flag, its environment variable and its key in the
/// configuration file.
public enum ServeOption: String, CaseIterable, Sendable {
    case model
    case modelName = "model-name"
    case adapters
    case strictAdapters = "strict-adapters"
    case stateDirectory = "state-dir"
    case host
    case port
    case tlsCertificate = "tls-cert"
    case tlsKey = "tls-key"
    case weights
    case threads
    case memoryBudget = "memory-budget"
    case maximumBatchTokens = "max-batch-tokens"
    case maximumRunning = "max-running"
    case maximumWaiting = "max-waiting"
    case maximumContext = "max-context"
    case apiKeys = "api-keys"
    case allowUnauthenticated = "allow-unauthenticated"
    case allowedAdapterRoot = "allowed-adapter-root"
    case drainTimeout = "drain-timeout"
    case logFormat = "log-format"
    case logLevel = "log-level"

    public var flag: String { "--\(rawValue)" }

    /// `LORRY_MODEL_NAME` for `--model-name`.
    public var environmentName: String {
        "LORRY_" + rawValue.uppercased().replacing("-", with: "_")
    }
}
