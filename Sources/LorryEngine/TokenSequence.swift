import LorryModel

/// Names a sequence within one engine.
package struct SequenceID: Hashable, Sendable, Comparable {
    package let value: UInt64

    package init(value: UInt64) { self.value = value }

    package static func < (a: SequenceID, b: SequenceID) -> Bool { a.value < b.value }
}

/// A request's state in the engine. Owned by the engine thread.
package final class TokenSequence {
    package let id: SequenceID
    package let request: GenerationRequest
    package let channel: EventChannel
    package let limits: Limits
    package let submitted: ContinuousClock.Instant

    /// What the request and the engine's configuration allow this sequence.
    package struct Limits {
        /// Prompt and answer together.
        package var tokenCount: Int
        /// The request's stop tokens, and the end tokens of the model unless it ignores them.
        package var endTokens: Set<Int32>

        package init(tokenCount: Int, endTokens: Set<Int32>) {
            self.tokenCount = tokenCount
            self.endTokens = endTokens
        }
    }

    /// Tokens of the adapter's own, which come first.
    package let virtualCount: Int
    /// The first token that the adapter acts on: those before it are the base's.
    package let activationStart: Int

    struct Prefix {
        let root: PrefixIndex.Place
        /// Of the last block that is cached, or the root.
        var place: PrefixIndex.Place
        /// Cached blocks, which are the sequence's first ones.
        var blockCount: Int
    }

    /// The adapter's virtual tokens, the prompt, then what was generated.
    package private(set) var tokens: [Int32]
    /// Tokens whose keys and values are in the blocks.
    package private(set) var computedCount = 0
    package private(set) var blocks: [BlockID] = []
    /// The numbers of `blocks`, as a forward pass takes them.
    package private(set) var blockTable: [Int32] = []
    /// Where the sequence is in the prefix cache, while it has blocks that are to be shared.
    var prefix: Prefix?
    /// Tokens whose keys and values were there when it was first admitted; nil before that, and where
    /// they were not looked up.
    package internal(set) var cachedTokenCount: Int?
    /// Set while the reader lags behind; such a sequence takes no part in steps.
    package var isPaused = false
    package var sampler: Sampler
    /// Memory for the alternatives of a sampled token.
    package var greatest = GreatestLogits()
    package var promptLogprobs: [TokenLogprobs?] = []
    package var hasSentPrompt = false

    package var adapterReady: ContinuousClock.Instant?
    package var firstScheduled: ContinuousClock.Instant?
    package var firstToken: ContinuousClock.Instant?
    package var lastToken: ContinuousClock.Instant?
    // The fair queue's.
    package internal(set) var standing = Standing.arrived
    unowned var flow: AdapterFlow?
    var places = HeapPlaces()
    /// Tokens that it has still to compute, while it waits.
    var queuedTokenCount = 0
    /// Its prompt was charged to its tenant.
    var isCharged = false

    /// Where a sequence is between its arrival and its end.
    package enum Standing: Sendable {
        case arrived, waiting
        /// Preempted, and its reader lags behind.
        case suspended
        case running, ended
    }

    /// Its place in the bounded queue, until it first runs.
    package var reservation: QueuePlace?

    package init(
        id: SequenceID, request: GenerationRequest, channel: EventChannel, limits: Limits,
        submitted: ContinuousClock.Instant
    ) {
        self.id = id
        self.request = request
        self.channel = channel
        self.limits = limits
        self.submitted = submitted
        virtualCount = request.adapter?.virtualTokenCount ?? 0
        activationStart = request.adapter?.traits.activationStart(in: request.promptTokens) ?? 0
        tokens = (0..<Int32(virtualCount)).map { -1 - $0 } + request.promptTokens
        sampler = Sampler(request, endTokens: limits.endTokens)
    }

    /// Virtual tokens included.
    package var promptCount: Int { virtualCount + request.promptTokens.count }
    package var generatedCount: Int { tokens.count - promptCount }
    package var adapterID: AdapterVersionID? { request.adapter?.id }

    /// Tokens that a step has still to compute before the next one can be sampled.
    package var pendingCount: Int { tokens.count - computedCount }

    /// Whether the next step computes just the token that was sampled last.
    package var isDecoding: Bool { pendingCount == 1 && generatedCount > 0 }

    package func append(_ token: Int32) {
        tokens.append(token)
    }

    package func didCompute(_ count: Int) {
        computedCount += count
        precondition(computedCount <= tokens.count)
    }

    package func addBlock(_ block: BlockID) {
        blocks.append(block)
        blockTable.append(block.index)
    }

    func replaceBlock(at index: Int, by block: BlockID) {
        blocks[index] = block
        blockTable[index] = block.index
    }

    /// Forgets all keys and values; whoever calls lets go of the blocks.
    func forgetBlocks() {
        blocks = []
        blockTable = []
        computedCount = 0
        prefix = nil
    }
}

extension TokenSequence {
    /// First tokens whose keys and values may be shared: past the activation they depend on where
    /// in this very prompt it is.
    var shareableCount: Int { activationStart > 0 ? activationStart : Int.max }

    /// Only the prompt is to be evaluated.
    var wantsNoTokens: Bool { request.maximumTokenCount == 0 }

    func isDecodeStep(_ range: Range<Int>) -> Bool {
        range.count == 1 && range.lowerBound >= promptCount
    }

    /// Offsets into the range of the tokens whose logits are wanted.
    func logitOffsets(_ range: Range<Int>) -> Range<Int> {
        let end = range.count
        let last = range.upperBound == tokens.count ? end - 1 : end
        guard request.promptLogprobCount != nil, !hasSentPrompt else { return last..<end }
        // Recomputed tokens were reported before; the row of the prompt's last token only samples.
        let first = max(range.lowerBound, virtualCount + promptLogprobs.count) - range.lowerBound
        let promptEnd = min(range.upperBound, promptCount - 1) - range.lowerBound
        return first < promptEnd ? first..<max(promptEnd, last < end ? end : promptEnd) : last..<end
    }

    func timings(at end: ContinuousClock.Instant) -> GenerationTimings {
        var timings = GenerationTimings()
        let started = firstScheduled ?? end
        let ready = min(adapterReady ?? submitted, started)
        timings.load = ready > submitted ? ready - submitted : .zero
        timings.queue = started - submitted - timings.load
        if firstScheduled != nil {
            timings.prefill = (firstToken ?? end) - started
            timings.decode = firstToken.map { end - $0 } ?? .zero
        }
        return timings
    }
}
