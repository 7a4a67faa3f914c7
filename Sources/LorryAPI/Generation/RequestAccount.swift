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
        var share: AdmissionShare?
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

    /// Books what the request uses under its limits, too.
    func attach(_ share: AdmissionShare?) { state.withLock { $0.share = share } }

    func addPrompt(tokenCount: Int) {
        let share = state.withLock { state in
            state.usage.promptTokenCount += tokenCount
            return state.share
        }
        share?.use(tokenCount)
    }

    func add(_ delta: AnswerDelta) {
        let share = state.withLock { state in
            state.usage.completionTokenCount += delta.completionTokenCount
            state.usage.cachedTokenCount += delta.finish?.cachedTokenCount ?? 0
            return state.share
        }
        share?.use(delta.completionTokenCount)
    }

    func close(_ outcome: Outcome) {
        let ended: (TokenUsage, AdmissionShare?)? = state.withLock { state in
            guard !state.isClosed else { return nil }
            state.isClosed = true
            defer { state.share = nil }
            return (state.usage, state.share)
        }
        guard let (usage, share) = ended else { return }
        metrics.requestEnded(
            adapter: adapter, tenant: principal.tenant, outcome: outcome, usage: usage)
        // What failed or was refused before its first token has been given nothing.
        let wasServed =
            outcome == .succeeded || outcome == .cancelled || usage.completionTokenCount > 0
        if !wasServed {
            if outcome == .refused { share?.cancel() } else { share?.use(-usage.totalTokenCount) }
        }
        if wasServed, usage.promptTokenCount > 0 {
            ledger.record(principal, adapter: adapter, usage.counts)
        }
    }

    func close(_ error: any Error) {
        switch error {
        case is CancellationError: close(.cancelled)
        case let error as APIError where error.status == .tooManyRequests: close(.refused)
        case let error as APIError where error.type == APIError.deadlineType: close(.refused)
        case is APIError: close(.failed)
        default: close(.cancelled)  // writing failed: the client is gone
        }
    }
}
