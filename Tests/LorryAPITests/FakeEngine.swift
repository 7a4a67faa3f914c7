import LorryAPI
import LorryEngine
import Synchronization

/// Stands in for the engine: plays scripted tokens, and remembers what it was asked.
final class FakeEngine: GenerationService {
    /// What one sequence does.
    struct Script: Sendable {
        var tokens: [Int32] = []
        /// Nil ends as `length` where the token bound was met, and at an end token otherwise.
        var reason: FinishReason?
        /// Takes the place of the end.
        var failure: EngineError?
        /// Waits for `cancel` after its tokens.
        var hangs = false
        var cachedTokenCount = 0
        /// Tokens that count but are not told, as the end token is.
        var untoldTokenCount = 0
        /// Of each generated token.
        var logprob: Float = -0.5
    }

    struct State: Sendable {
        var requests: [GenerationRequest] = []
        var reservedCounts: [Int] = []
        /// Estimates, each followed by its correction.
        var reservedTokenCounts: [Int] = []
        var cancelCount = 0
        var calls: [String] = []
        var reserveError: EngineError?
        var isAlive = true
        var statistics = EngineStatistics()
    }

    let maximumContextLength = 64
    let vocabularySize = TestTokenizer.vocabularySize
    let state = Mutex(State())
    private let script: @Sendable (GenerationRequest) -> Script

    init(_ script: @escaping @Sendable (GenerationRequest) -> Script) { self.script = script }

    /// Says `text`, one byte a token.
    convenience init(saying text: String) {
        self.init { _ in Script(tokens: TestTokenizer.tokens(text)) }
    }

    var requests: [GenerationRequest] { state.withLock { $0.requests } }
    var calls: [String] { state.withLock { $0.calls } }
    var cancelCount: Int { state.withLock { $0.cancelCount } }

    var isAlive: Bool { state.withLock { $0.isAlive } }
    func statistics() -> EngineStatistics { state.withLock { $0.statistics } }
    func preload(_ adapter: AdapterReference) { note("preload \(adapter.id)") }
    func setPinned(_ id: LorryEngine.AdapterVersionID, _ pinned: Bool) {
        note("\(pinned ? "pin" : "unpin") \(id)")
    }
    func forget(_ id: LorryEngine.AdapterVersionID) { note("forget \(id)") }
    private func note(_ call: String) { state.withLock { $0.calls.append(call) } }

    func reserve(
        count: Int, tokenCount: Int, tenant: String
    ) throws(EngineError) -> any GenerationReservation {
        let error = state.withLock { state in
            state.reservedCounts.append(count)
            state.reservedTokenCounts.append(tokenCount)
            return state.reserveError
        }
        if let error { throw error }
        return Reservation(engine: self)
    }

    private struct Reservation: GenerationReservation {
        let engine: FakeEngine
        func correct(tokenCount: Int) throws(EngineError) {
            engine.state.withLock { $0.reservedTokenCounts.append(tokenCount) }
        }
        func submit(_ request: GenerationRequest) throws(EngineError) -> any GenerationStream {
            engine.state.withLock { $0.requests.append(request) }
            return FakeStream(request, engine.script(request)) {
                engine.state.withLock { $0.cancelCount += 1 }
            }
        }
    }
}

/// One scripted sequence.
final class FakeStream: GenerationStream {
    private struct State {
        var events: [GenerationEvent]
        var isCancelled = false
        var reader: CheckedContinuation<GenerationEvent?, Never>?
        var sentCount = 0
    }

    private let state: Mutex<State>
    private let hangs: Bool
    private let onCancel: @Sendable () -> Void

    init(
        _ request: GenerationRequest, _ script: FakeEngine.Script,
        onCancel: @escaping @Sendable () -> Void
    ) {
        var events: [GenerationEvent] = []
        if let count = request.promptLogprobCount {
            events.append(
                .prompt(
                    request.promptTokens.enumerated().map { position, id in
                        position == 0 ? nil : Self.logprobs(of: id, -1.25, count)
                    }))
        }
        let tokens = script.tokens.prefix(request.maximumTokenCount)
        for id in tokens {
            let logprobs = request.logprobCount.map { Self.logprobs(of: id, script.logprob, $0) }
            events.append(.token(GeneratedToken(id: id, logprobs: logprobs)))
        }
        let isCut = tokens.count == request.maximumTokenCount
        let reason = script.reason ?? (isCut ? .length : .stop(token: TestTokenizer.endToken))
        if let failure = script.failure {
            events.append(.failed(failure))
        } else if !script.hangs {
            events.append(
                .finished(
                    Self.summary(
                        reason, request, tokens.count + script.untoldTokenCount,
                        script.cachedTokenCount)))
        }
        state = Mutex(State(events: events))
        hangs = script.hangs
        self.onCancel = onCancel
    }

    /// The token itself first, then tokens with rising ids.
    static func logprobs(of id: Int32, _ logprob: Float, _ count: Int) -> TokenLogprobs {
        TokenLogprobs(
            logprob: logprob, rank: 1,
            top: (0..<count).map {
                .init(id: $0 == 0 ? id : 64 + Int32($0), logprob: logprob - Float($0))
            })
    }

    static func summary(
        _ reason: FinishReason, _ request: GenerationRequest, _ count: Int, _ cached: Int
    ) -> GenerationSummary {
        var timings = GenerationTimings()
        timings.queue = .milliseconds(1)
        timings.prefill = .microseconds(2500)
        return GenerationSummary(
            reason: reason, promptTokenCount: request.promptTokens.count,
            completionTokenCount: count, cachedTokenCount: cached, timings: timings)
    }

    private static let cancelled = GenerationEvent.finished(
        GenerationSummary(
            reason: .cancelled, promptTokenCount: 0, completionTokenCount: 0, cachedTokenCount: 0,
            timings: GenerationTimings()))

    func next() async -> GenerationEvent? {
        await withCheckedContinuation { continuation in
            let event: GenerationEvent?? = state.withLock { state in
                if state.isCancelled { return .some(Self.cancelled) }
                if !state.events.isEmpty { return .some(state.events.removeFirst()) }
                if !hangs { return .some(nil) }
                state.reader = continuation
                return nil
            }
            if let event { continuation.resume(returning: event) }
        }
    }

    func stop() { cancel() }

    func cancel() {
        let (isFirst, reader) = state.withLock { state in
            defer {
                state.isCancelled = true
                state.reader = nil
            }
            return (!state.isCancelled, state.reader)
        }
        if isFirst { onCancel() }
        reader?.resume(returning: Self.cancelled)
    }
}
