/// What a running generation reports, in order: at most one `prompt`, then `token`s, then exactly
/// one of `finished` or `failed`.
public enum GenerationEvent: Sendable {
    /// Log-probabilities of the prompt's tokens, where the request asked for them. The first token
    /// has none.
    case prompt([TokenLogprobs?])
    case token(GeneratedToken)
    case finished(GenerationSummary)
    case failed(EngineError)
}

public struct GeneratedToken: Sendable, Equatable {
    public let id: Int32
    /// Present where the request asked for log-probabilities.
    public let logprobs: TokenLogprobs?

    package init(id: Int32, logprobs: TokenLogprobs?) {
        self.id = id
        self.logprobs = logprobs
    }
}

/// Natural logarithms of probabilities under the model's own distribution (before temperature,
/// penalties and filters, as vLLM reports them by default).
public struct TokenLogprobs: Sendable, Equatable {
    public struct Alternative: Sendable, Equatable {
        public let id: Int32
        public let logprob: Float

        package init(id: Int32, logprob: Float) {
            self.id = id
            self.logprob = logprob
        }
    }
    /// Of the token that is there.
    public let logprob: Float
    /// Its place in the order of probabilities, from 1.
    public let rank: Int
    /// The most probable tokens, most probable first.
    public let top: [Alternative]

    package init(logprob: Float, rank: Int, top: [Alternative]) {
        self.logprob = logprob
        self.rank = rank
        self.top = top
    }
}

public enum FinishReason: Sendable, Equatable {
    /// An end token, or a stop token of the request. The token itself was not reported as output.
    case stop(token: Int32)
    /// `maximumTokenCount` or the context length was reached.
    case length
    /// `Generation.stop()`: the reader has all that it wants, such as text up to a stop string.
    case readerSatisfied
    /// `Generation.cancel()`, or nobody was left to read the events.
    case cancelled
}

public struct GenerationSummary: Sendable, Equatable {
    public let reason: FinishReason
    public let promptTokenCount: Int
    public let completionTokenCount: Int
    /// Prompt tokens whose keys and values came from the prefix cache.
    public let cachedTokenCount: Int
    public let timings: GenerationTimings

    package init(
        reason: FinishReason, promptTokenCount: Int, completionTokenCount: Int,
        cachedTokenCount: Int, timings: GenerationTimings
    ) {
        self.reason = reason
        self.promptTokenCount = promptTokenCount
        self.completionTokenCount = completionTokenCount
        self.cachedTokenCount = cachedTokenCount
        self.timings = timings
    }
}

/// Where a request's time went.
public struct GenerationTimings: Sendable, Equatable {
    /// From submission until its first step began, less `load`.
    public var queue: Duration = .zero
    /// Waiting for the adapter to become resident.
    public var load: Duration = .zero
    /// From its first step until its first token.
    public var prefill: Duration = .zero
    /// From its first token until its end.
    public var decode: Duration = .zero

    public init() {}
}

/// Why the engine did not take a request, or did not bring it to its end.
public enum EngineError: Error, Sendable, Equatable {
    /// The bounded queue is full; `retryAfter` estimates when it may have room.
    case queueFull(retryAfter: Duration)
    /// One request asks for more sequences than may ever wait.
    case queueTooSmall(sequenceCount: Int, limit: Int)
    /// The prompt leaves no room for an answer within the context length.
    case promptTooLong(tokenCount: Int, limit: Int)
    /// Prompt, answer at its longest, and adapter together need more than the memory budget.
    case exceedsMemory(requiredByteCount: Int, budgetByteCount: Int)
    case invalidToken(Int32, vocabularySize: Int)
    case adapterLoadFailed(name: String, reason: String)
    /// The model with this adapter, or a sum of adapters, gives logits that are NaN or infinite.
    case numbersOverflow(adapter: String?)
    /// By measured costs and what is ahead of it, the request would need `needed`, and its deadline
    /// is in `left`.
    case deadlineUnreachable(needed: Duration, left: Duration)
    /// The deadline passed while the sequence waited or ran.
    case deadlinePassed
    case shuttingDown
}
