import LorryModel

/// What a client wants generated: the engine's input, free of text and HTTP.
public struct GenerationRequest: Sendable {
    /// Appears in logs and metrics; need not be unique.
    public var id: String
    /// At least one token.
    public var promptTokens: [Int32]
    /// Nil runs the base model alone.
    public var adapter: AdapterReference?
    public var sampling = SamplingParameters()
    /// Upper bound on generated tokens; 0 only evaluates the prompt.
    public var maximumTokenCount: Int
    /// Before this many tokens neither an end token nor a stop token is sampled.
    public var minimumTokenCount = 0
    /// Generates on past the model's end-of-sequence tokens.
    public var ignoresEndTokens = false
    /// Further tokens that end the generation, beside the model's own.
    public var stopTokenIDs: Set<Int32> = []
    /// How many alternatives each generated token's log-probabilities list; nil for none at all.
    public var logprobCount: Int?
    /// The same for the prompt's tokens.
    public var promptLogprobCount: Int?
    /// Lower runs first, among the requests of the same tenant.
    public var priority = 0
    /// Separates, within a tenant, what is cached of prompts: only requests with the same salt share
    /// keys and values.
    public var cacheSalt = ""
    /// On whose account it runs: tenants get equal service.
    public var tenant = "default"
    /// Above 0: a tenant of weight 2 gets twice the service of one of weight 1.
    public var weight = 1.0
    /// When nobody will want the answer any more.
    public var deadline: ContinuousClock.Instant?

    public init(
        id: String, promptTokens: [Int32], adapter: AdapterReference? = nil, maximumTokenCount: Int
    ) {
        self.id = id
        self.promptTokens = promptTokens
        self.adapter = adapter
        self.maximumTokenCount = maximumTokenCount
    }
}

/// An immutable adapter version that a request names, and how to bring it into memory.
public struct AdapterReference: Sendable {
    /// The version's content hash: what residency and batching go by.
    public let id: AdapterVersionID
    /// The name that clients use; for logs and metrics only.
    public let name: String
    /// Bytes that the adapter occupies while it is resident.
    public let byteCount: Int
    public let traits: AdapterTraits
    /// Starts to read the adapter's files and returns at once; so that they are there, or nearly,
    /// when `load` wants them.
    public let readAhead: @Sendable () -> Void
    /// Compiles the adapter; runs off the engine thread, at most once at a time per version.
    public let load: @Sendable () throws -> AdapterProgram
    /// Kept until the request has ended, so that the files behind `load` stay in place.
    public let hold: (any Sendable)?

    public init(
        id: AdapterVersionID, name: String, byteCount: Int, traits: AdapterTraits = AdapterTraits(),
        hold: (any Sendable)? = nil,
        readAhead: @escaping @Sendable () -> Void = {},
        load: @escaping @Sendable () throws -> AdapterProgram
    ) {
        self.id = id
        self.name = name
        self.byteCount = byteCount
        self.traits = traits
        self.hold = hold
        self.readAhead = readAhead
        self.load = load
    }
}

extension AdapterReference {
    /// Tokens of the adapter's own in front of every prompt.
    public var virtualTokenCount: Int { traits.virtualTokenCount ?? 0 }
}

/// Names an immutable adapter version by the hash of its content.
public struct AdapterVersionID: Hashable, Sendable, CustomStringConvertible {
    public let digest: String
    public init(_ digest: String) { self.digest = digest }
    public var description: String { digest }
}

/// How the next token is chosen. The defaults sample from the model's own distribution.
///
/// Logits pass, in this order, through logit bias, the three penalties, temperature, and then the
/// filters min-p, top-k, top-p (vLLM's order) and typical-p.
public struct SamplingParameters: Sendable, Equatable {
    /// 0 takes the most probable token.
    public var temperature: Float = 1
    /// Keeps the smallest set of tokens whose probabilities reach this sum.
    public var topP: Float = 1
    /// Keeps this many tokens; 0 keeps all.
    public var topK = 0
    /// Keeps tokens at least this probable relative to the most probable one.
    public var minP: Float = 0
    /// Locally typical sampling (arXiv 2202.00666); 1 keeps all.
    public var typicalP: Float = 1
    /// Divides positive and multiplies negative logits of tokens that the prompt or the answer has.
    public var repetitionPenalty: Float = 1
    /// Subtracted from a token's logit once per occurrence in the answer.
    public var frequencyPenalty: Float = 0
    /// Subtracted from a token's logit where the answer has it.
    public var presencePenalty: Float = 0
    /// Added to the logits of single tokens.
    public var logitBias: [Int32: Float] = [:]
    /// Makes sampling reproducible; nil draws a seed.
    public var seed: UInt64?

    public init() {}
}
