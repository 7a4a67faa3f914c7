import Foundation
import LorryEngine
import Synchronization

/// Counts of durations in classes that are half a percent wide.
struct DurationCounts {
    private static let width = 0.005
    private static let least = 1e-6
    private var counts: [Int] = []
    private(set) var count = 0

    mutating func add(_ duration: Duration) {
        let seconds = max(duration / .seconds(1), Self.least)
        let index = Int(log(seconds / Self.least) / Self.width)
        if index >= counts.count {
            counts.append(contentsOf: repeatElement(0, count: index + 1 - counts.count))
        }
        counts[index] += 1
        count += 1
    }

    mutating func add(_ other: DurationCounts) {
        let missing = max(other.counts.count - counts.count, 0)
        counts.append(contentsOf: repeatElement(0, count: missing))
        for (index, count) in other.counts.enumerated() { counts[index] += count }
        count += other.count
    }

    /// - Parameter share: from 0 to 1.
    func percentile(_ share: Double) -> Double {
        var left = Int((share * Double(count)).rounded(.up))
        for (index, count) in counts.enumerated() {
            left -= count
            if left <= 0, count > 0 {
                return Self.least * exp((Double(index) + 0.5) * Self.width)
            }
        }
        return 0
    }
}

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
