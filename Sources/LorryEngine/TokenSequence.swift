import LorryModel

/// Names a sequence within one engine.
struct SequenceID: Hashable, Sendable, Comparable {
    let value: UInt64
    static func < (a: SequenceID, b: SequenceID) -> Bool { a.value < b.value }
}

/// A request's state in the engine. Owned by the engine thread.
final class TokenSequence {
    let id: SequenceID
    let request: GenerationRequest
    let channel: EventChannel
    let limits: Limits
    let submitted: ContinuousClock.Instant

    /// What the request and the engine's configuration allow this sequence.
    struct Limits {
        /// Prompt and answer together.
        var tokenCount: Int
        /// The request's stop tokens, and the end tokens of the model unless it ignores them.
        var endTokens: Set<Int32>
    }

    /// The prompt, then what was generated.
    private(set) var tokens: [Int32]
    /// Tokens whose keys and values are in the blocks.
    private(set) var computedCount = 0
    private(set) var blocks: [BlockID] = []
    /// Set while the reader lags behind; such a sequence takes no part in steps.
    var isPaused = false
    var sampler: Sampler
    var promptLogprobs: [TokenLogprobs?] = []
    var hasSentPrompt = false

    var adapterReady: ContinuousClock.Instant?
    var firstScheduled: ContinuousClock.Instant?
    var firstToken: ContinuousClock.Instant?
    var lastToken: ContinuousClock.Instant?
    /// Its place in the bounded queue, until it first runs.
    var reservation: QueuePlace?

    init(
        id: SequenceID, request: GenerationRequest, channel: EventChannel, limits: Limits,
        submitted: ContinuousClock.Instant
    ) {
        self.id = id
        self.request = request
        self.channel = channel
        self.limits = limits
        self.submitted = submitted
        tokens = request.promptTokens
        sampler = Sampler(request, endTokens: limits.endTokens)
    }

    var promptCount: Int { request.promptTokens.count }
    var generatedCount: Int { tokens.count - promptCount }
    var adapterID: AdapterVersionID? { request.adapter?.id }

    /// Tokens that a step has still to compute before the next one can be sampled.
    var pendingCount: Int { tokens.count - computedCount }

    /// Whether the next step computes just the token that was sampled last.
    var isDecoding: Bool { pendingCount == 1 && generatedCount > 0 }

    func append(_ token: Int32) {
        tokens.append(token)
    }

    func didCompute(_ count: Int) {
        computedCount += count
        precondition(computedCount <= tokens.count)
    }

    func addBlock(_ block: BlockID) { blocks.append(block) }

    /// Forgets all keys and values.
    /// - Returns: the blocks that held them.
    func releaseBlocks() -> [BlockID] {
        defer {
            blocks = []
            computedCount = 0
        }
        return blocks
    }
}
