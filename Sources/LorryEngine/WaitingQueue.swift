import Synchronization

/// Counts places in the bounded queue of sequences that wait to run. `state` is guarded by its mutex.
package final class WaitingQueue: Sendable {
    private struct State {
        var taken = 0
        var isClosed = false
        /// Exponentially weighted interval between sequences that start to run.
        var startInterval: Duration?
        var lastStart: ContinuousClock.Instant?
    }

    private let state = Mutex(State())
    package let capacity: Int

    package init(capacity: Int) { self.capacity = capacity }

    /// - Throws: `EngineError.queueFull` or `.shuttingDown`.
    package func take(_ count: Int) throws(EngineError) {
        let error: EngineError? = state.withLock { state in
            if state.isClosed { return .shuttingDown }
            guard state.taken + count <= capacity else {
                return .queueFull(retryAfter: Self.retryAfter(state))
            }
            state.taken += count
            return nil
        }
        if let error { throw error }
    }

    /// Half the time that the queue took to drain lately, within 1 to 60 seconds.
    private static func retryAfter(_ state: State) -> Duration {
        guard let interval = state.startInterval else { return .seconds(1) }
        return min(max(interval * state.taken / 2, .seconds(1)), .seconds(60))
    }

    package func giveBack(_ count: Int) {
        state.withLock { $0.taken -= count }
    }

    package func noteStart(_ now: ContinuousClock.Instant) {
        state.withLock { state in
            if let last = state.lastStart {
                let interval = now - last
                state.startInterval =
                    state.startInterval.map { ($0 * 7 + interval) / 8 } ?? interval
            }
            state.lastStart = now
        }
    }

    package func close() { state.withLock { $0.isClosed = true } }

    package var takenCount: Int { state.withLock { $0.taken } }
}

/// Places in the queue for sequences that are not submitted yet: taken before any work is done for
/// a request, given back in `deinit` where they were not used.
public final class QueueReservation: Sendable {
    private let queue: WaitingQueue
    private let remaining: Mutex<Int>

    package init(queue: WaitingQueue, count: Int) {
        self.queue = queue
        remaining = Mutex(count)
    }

    deinit {
        let count = remaining.withLock { $0 }
        queue.giveBack(count)
    }

    /// - Returns: nil where all places were used.
    package func take() -> QueuePlace? {
        let isThere = remaining.withLock { remaining in
            guard remaining > 0 else { return false }
            remaining -= 1
            return true
        }
        return isThere ? QueuePlace(queue: queue) : nil
    }
}

/// One sequence's place in the queue; dropping it frees the place.
package final class QueuePlace: Sendable {
    private let queue: WaitingQueue
    package init(queue: WaitingQueue) { self.queue = queue }
    deinit { queue.giveBack(1) }
}
