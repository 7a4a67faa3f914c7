import HTTPTypes
import Synchronization

/// Books one request under its adapter and tenant, exactly once: a request that is dropped before
/// its end was told counts as cancelled, with the tokens that it had by then.
final class RequestAccount: Sendable {
    enum Outcome: String, Sendable, CaseIterable {
        case succeeded
        case failed
        case cancelled
        /// No place in the queue, or no time.
        case refused
    }

    private struct State {
        var usage = TokenUsage()
        var isClosed = false
    }

    private let metrics: ServerMetrics
    private let adapter: String
    private let tenant: String
    private let state = Mutex(State())

    init(metrics: ServerMetrics, adapter: String, tenant: String) {
        self.metrics = metrics
        self.adapter = adapter
        self.tenant = tenant
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

    func close(_ outcome: Outcome) {
        let usage: TokenUsage? = state.withLock {
            guard !$0.isClosed else { return nil }
            $0.isClosed = true
            return $0.usage
        }
        guard let usage else { return }
        metrics.requestEnded(adapter: adapter, tenant: tenant, outcome: outcome, usage: usage)
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
