import HTTPTypes
import Synchronization

/// Books one request under its adapter, tenant and key, exactly once: a request that is dropped
/// before its end was told counts as cancelled, with the tokens that it had by then.
final class RequestAccount: Sendable {
    enum Outcome: String, Sendable, CaseIterable {
        case succeeded
        case failed
        case cancelled
        /// No place in the queue, no room in a limit, or no time.
        case refused
    }

    private struct State {
        var usage = TokenUsage()
        var isClosed = false
    }

    private let metrics: ServerMetrics
    private let ledger: UsageLedger
    private let adapter: String
    private let principal: Principal
    private let state = Mutex(State())

    /// - Parameter adapter: its name; empty for the base model.
    init(_ services: APIServices, adapter: String, principal: Principal) {
        metrics = services.metrics
        ledger = services.usage
        self.adapter = adapter
        self.principal = principal
    }

    deinit { close(.cancelled) }

    func addPrompt(tokenCount: Int) {
        state.withLock { $0.usage.promptTokenCount += tokenCount }
    }

    func add(_ delta: AnswerDelta) {
        state.withLock {
            $0.usage.completionTokenCount += delta.completionTokenCount
            $0.usage.cachedTokenCount += delta.finish?.cachedTokenCount ?? 0
        }
    }

    /// - Returns: tokens that were counted and do not count against limits, since it was not served.
    @discardableResult
    func close(_ outcome: Outcome) -> Int {
        let ended: TokenUsage? = state.withLock { state in
            guard !state.isClosed else { return nil }
            state.isClosed = true
            return state.usage
        }
        guard let usage = ended else { return 0 }
        metrics.requestEnded(
            adapter: adapter, tenant: principal.tenant, outcome: outcome, usage: usage)
        // What failed or was refused before its first token has been given nothing.
        let wasServed =
            outcome == .succeeded || outcome == .cancelled || usage.completionTokenCount > 0
        if wasServed, usage.promptTokenCount > 0 {
            ledger.record(principal, adapter: adapter, usage.counts)
        }
        return wasServed ? 0 : usage.totalTokenCount
    }
}

extension RequestAccount.Outcome {
    /// What a request ended as that failed so.
    init(_ error: any Error) {
        switch error {
        case is CancellationError: self = .cancelled
        case let error as APIError where error.status == .tooManyRequests: self = .refused
        case let error as APIError where error.type == APIError.deadlineType: self = .refused
        case is APIError: self = .failed
        default: self = .cancelled  // writing failed: the client is gone
        }
    }
}

/// The accounts of one request, one for each adapter that its prompts name, and what it has taken
/// of its limits.
final class RequestAccounts: Sendable {
    private struct State {
        var tokenCount = 0
        var share: AdmissionShare?
    }

    private let accounts: [RequestAccount]
    /// Which of them is each prompt's.
    private let indices: [Int]
    private let state = Mutex(State())

    init(_ services: APIServices, _ models: [ServedModel], principal: Principal) {
        var names: [String] = []
        indices = models.map { model in
            if let index = names.firstIndex(of: model.adapterName) { return index }
            names.append(model.adapterName)
            return names.count - 1
        }
        accounts = names.map { RequestAccount(services, adapter: $0, principal: principal) }
    }

    deinit { close(.cancelled) }

    /// Books what the request uses under its limits, too.
    func attach(_ share: AdmissionShare?) { state.withLock { $0.share = share } }

    func addPrompt(_ index: Int, tokenCount: Int) {
        accounts[indices[index]].addPrompt(tokenCount: tokenCount)
        use(tokenCount)
    }

    func add(_ delta: AnswerDelta, ofPrompt index: Int) {
        accounts[indices[index]].add(delta)
        use(delta.completionTokenCount)
    }

    private func use(_ tokenCount: Int) {
        let share = state.withLock { state in
            state.tokenCount += tokenCount
            return state.share
        }
        share?.use(tokenCount)
    }

    func close(_ outcome: RequestAccount.Outcome) {
        let unservedCount = accounts.reduce(0) { $0 + $1.close(outcome) }
        let (share, tokenCount) = state.withLock { state in
            defer { state.share = nil }
            return (state.share, state.tokenCount)
        }
        if outcome == .refused, unservedCount == tokenCount {
            share?.cancel()
        } else {
            share?.use(-unservedCount)
        }
    }

    func close(_ error: any Error) { close(RequestAccount.Outcome(error)) }
}
