import LorryEngine
import Synchronization

/// Notes the engine's steps, and tells when what was asked for has happened.
///
/// Called on the engine's thread; `state` is guarded by its mutex.
final class StepRecorder: EngineObserver {
    struct Step: Sendable {
        var promptTokenCount: Int
        var decodeTokenCount: Int
        var plan: Duration
        var run: Duration
        var commit: Duration
        var end: ContinuousClock.Instant
        /// Tokens that were generated since the recording began, before this step.
        var generatedCount: Int

        var start: ContinuousClock.Instant { end - plan - run - commit }
    }

    enum Goal: Sendable, Equatable {
        /// So many generations have ended.
        case ended(Int)
        /// So many steps computed a token of every one of so many sequences, and no prompt.
        case fullSteps(Int, sequenceCount: Int)
    }

    struct Recording: Sendable {
        var steps: [Step] = []
        /// From submission to the first token, of each sequence.
        var firstTokenLatencies: [Duration] = []
    }

    private typealias Waiter = CheckedContinuation<Result<Recording, BenchError>, Never>

    private struct State {
        var goal = Goal.ended(0)
        var recording = Recording()
        var emittedCount = 0
        /// As of the last step.
        var emittedBefore = 0
        var endedCount = 0
        var fullStepCount = 0
        var outcome: Result<Recording, BenchError>?
        var waiter: Waiter?
    }

    private let state = Mutex(State())

    /// Starts anew. To be called while nothing runs.
    func begin(_ goal: Goal) { state.withLock { $0 = State(goal: goal) } }

    /// Returns once the goal is reached, or cannot be reached any more. One caller at a time.
    func recording() async throws(BenchError) -> Recording {
        let outcome = await withCheckedContinuation { continuation in
            let ready = state.withLock { state in
                if state.outcome == nil { state.waiter = continuation }
                return state.outcome
            }
            if let ready { continuation.resume(returning: ready) }
        }
        return try outcome.get()
    }

    /// Sets the outcome once, and gives it to the caller who waits for it.
    private func conclude(_ outcome: Result<Recording, BenchError>) {
        let waiter = state.withLock { state in
            guard state.outcome == nil else { return Waiter?.none }
            state.outcome = outcome
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume(returning: outcome)
    }

    // MARK: - EngineObserver

    func engineDidStep(_ step: StepObservation) {
        let end = ContinuousClock.now
        let reached = state.withLock { state -> Recording? in
            state.recording.steps.append(
                Step(
                    promptTokenCount: step.promptTokenCount,
                    decodeTokenCount: step.decodeTokenCount, plan: step.plan, run: step.run,
                    commit: step.commit, end: end, generatedCount: state.emittedBefore))
            state.emittedBefore = state.emittedCount
            let isReached: Bool
            switch state.goal {
            case .ended(let count): isReached = state.endedCount >= count
            case .fullSteps(let count, let sequenceCount):
                let isFull = step.promptTokenCount == 0 && step.decodeTokenCount == sequenceCount
                state.fullStepCount += isFull ? 1 : 0
                isReached = state.fullStepCount >= count
            }
            return isReached ? state.recording : nil
        }
        if let reached { conclude(.success(reached)) }
    }

    func engineDidEmitToken(_ token: TokenObservation) {
        state.withLock { state in
            state.emittedCount += 1
            if token.isFirst { state.recording.firstTokenLatencies.append(token.latency) }
        }
    }

    func engineDidFinish(_ request: FinishObservation) {
        var failure: BenchError?
        if case .failed(let error) = request.outcome {
            failure = BenchError("a request failed: \(error)")
        }
        let goal = state.withLock { state in
            state.endedCount += 1
            return state.goal
        }
        if case .fullSteps = goal, failure == nil {
            failure = .endedEarly
        }
        if let failure { conclude(.failure(failure)) }
    }

    func engineDidLoadAdapter(name: String, duration: Duration, error: String?) {}
    func engineDidEvictAdapter(name: String) {}
}
