/// The settings of `lorry serve`. The raw value is the flag's name without dashes and the key in a
/// configuration file.
public enum ServeSetting: String, CaseIterable, Sendable {
    case model
    case modelName = "model-name"
    case adapters
    case strictAdapters = "strict-adapters"
    case allowedAdapterRoot = "allowed-adapter-root"
    case stateDirectory = "state-dir"
    case host
    case port
    case tlsCertificate = "tls-cert"
    case tlsKey = "tls-key"
    case weights
    case weightCache = "weight-cache"
    case adapterWeights = "adapter-weights"
    case kvCache = "kv-cache"
    case prefixCache = "prefix-cache"
    case threads
    case memoryBudget = "memory-budget"
    case maxBatchTokens = "max-batch-tokens"
    case maxRunning = "max-running"
    case maxWaiting = "max-waiting"
    case maxWaitingTokens = "max-waiting-tokens"
    case stepTarget = "step-target"
    case maxContext = "max-context"
    case apiKeys = "api-keys"
    case allowUnauthenticated = "allow-unauthenticated"
    case maxConnections = "max-connections"
    case maxConnectionsPerAddress = "max-connections-per-address"
    case drainTimeout = "drain-timeout"
    case logFormat = "log-format"
    case logLevel = "log-level"

    public var flag: String { "--\(rawValue)" }

    /// `LORRY_` and the name in capitals, with underscores.
    public var environmentName: String {
        "LORRY_" + rawValue.uppercased().replacing("-", with: "_")
    }

    /// Which file `--config` names may also come from the environment, but not from a file.
    public static let configEnvironmentName = "LORRY_CONFIG"

    /// One sentence for `--help`.
    public var help: String {
        switch self {
        case .model:
            "Folder in Hugging Face format. (default: the bundled example model)"
        case .modelName: "What clients call the base model. (default: the folder's name)"
        case .adapters: "Registers every sub-folder that has an adapter_config.json at start."
        case .strictAdapters: "End the start when an adapter of --adapters is refused."
        case .allowedAdapterRoot:
            "Folder below which adapters may be added by path; may be given several times."
        case .stateDirectory:
            "Registry database and adapter store. (default: $XDG_STATE_HOME/lorry or ~/.local/state/lorry)"
        case .host: "Address to listen on. (default: 127.0.0.1)"
        case .port: "Port to listen on; 0 chooses a free one. (default: 8080)"
        case .tlsCertificate: "Certificate chain in PEM format; needs --tls-key."
        case .tlsKey: "Private key in PEM format; needs --tls-cert."
        case .weights:
            "How the base is held in memory: f32, bf16, int8 or int4. (default: bf16 where the file has 16 bits)"
        case .weightCache:
            "on or off: keep packed weights in the state directory for the next start. (default: on)"
        case .adapterWeights:
            "How adapters are held in memory: f32, bf16 or int8. (default: f32 with an f32 base, else bf16)"
        case .kvCache:
            "How keys and values are held: f32, bf16 or int8. (default: f32 with an f32 base, else bf16)"
        case .prefixCache:
            "on or off: keep keys and values for requests that begin with the same tokens. (default: on)"
        case .threads: "Compute threads. (default: physical cores)"
        case .memoryBudget:
            "One pool for KV blocks and adapters, such as 4GiB. (default: 70 % of the free memory)"
        case .maxBatchTokens: "Tokens of one step at most. (default: 512)"
        case .maxRunning: "Sequences that run at a time at most. (default: 64)"
        case .maxWaiting:
            "Sequences that wait at most; one more is answered with 429. (default: 1024)"
        case .maxWaitingTokens:
            "Prompt tokens of sequences that wait at most; more is answered with 429. (default: 1048576)"
        case .stepTarget:
            "How long a step should take at most while answers are generated, such as 50ms: prompts beside them are cut accordingly. (default: 500ms)"
        case .maxContext: "Tokens of a sequence at most. (default: the model's)"
        case .apiKeys: "File with API keys; without it only loopback addresses are allowed."
        case .allowUnauthenticated: "Listen beyond loopback without API keys."
        case .maxConnections:
            "Open connections at most; one more is answered with 503. (default: 4096)"
        case .maxConnectionsPerAddress:
            "Open connections of one client address at most, or of one IPv6 /64. (default: 1024)"
        case .drainTimeout:
            "How long running requests may take to end at shutdown, such as 30s. (default: 30s)"
        case .logFormat: "text or json. (default: text)"
        case .logLevel:
            "trace, debug, info, notice, warning, error or critical. (default: info)"
        }
    }
}
