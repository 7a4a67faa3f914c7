import LorryEngine
import Synchronization

/// Notes what the simulated engine does, by tenant.
final class SimulationRecorder: EngineObserver {
    struct Tenant {
        var firstToken = DurationCounts()
        var interToken = DurationCounts()
        var total = DurationCounts()
        var requestCount = 0
        var finishedCount = 0
        var failedCount = 0
        var refusedCount = 0
        var outputTokenCount = 0
        var promptTokenCount = 0
    }

    struct State {
        var tenants: [String: Tenant] = [:]
        var loadCount = 0
        var evictionCount = 0
        var mostWaiting = 0
    }

    /// The simulation has one thread, and the protocol wants a Sendable.
    let state = Mutex(State())

    func engineDidStep(_ step: StepObservation) {}

    func engineDidEmitToken(_ token: TokenObservation) {
        state.withLock { state in
            if token.isFirst {
                state.tenants[token.tenant, default: Tenant()].firstToken.add(token.latency)
            } else {
                state.tenants[token.tenant, default: Tenant()].interToken.add(token.latency)
            }
        }
    }

    func engineDidFinish(_ request: FinishObservation) {
        state.withLock { state in
            var tenant = state.tenants.removeValue(forKey: request.tenant) ?? Tenant()
            if case .finished = request.outcome {
                tenant.finishedCount += 1
                tenant.total.add(request.total)
                tenant.outputTokenCount += request.completionTokenCount
                tenant.promptTokenCount += request.promptTokenCount
            } else {
                tenant.failedCount += 1
            }
            state.tenants[request.tenant] = tenant
        }
    }

    func engineDidLoadAdapter(name: String, duration: Duration, error: String?) {
        state.withLock { $0.loadCount += 1 }
    }

    func engineDidEvictAdapter(name: String) { state.withLock { $0.evictionCount += 1 } }
}
