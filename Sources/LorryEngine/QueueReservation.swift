import Synchronization

/// Places in the queue for sequences that are not submitted yet: taken before any work is done for
/// a request, given back in `deinit` where they were not used.
public final class QueueReservation: Sendable {
    private struct Remaining {
        var count: Int
        var tokenCount: Int
    }

    private let queue: WaitingQueue
    private let tenant: String
    /// What was taken and is not with a sequence yet.
    private let remaining: Mutex<Remaining>

    /// - Parameter tokenCount: estimated prompt tokens of all the sequences together.
    package init(queue: WaitingQueue, count: Int, tokenCount: Int = 0, tenant: String = "") {
        self.queue = queue
        self.tenant = tenant
        remaining = Mutex(Remaining(count: count, tokenCount: tokenCount))
    }

    deinit {
        let left = remaining.withLock { $0 }
        queue.giveBack(left.count, tokenCount: left.tokenCount, tenant: tenant)
    }

    /// Puts the true number of prompt tokens of all sequences in the estimate's place.
    ///
    /// - Throws: `EngineError.queueFull` where there are more than was estimated, and no room for
    ///   them.
    public func correct(tokenCount: Int) throws(EngineError) {
        let estimate = remaining.withLock { $0.tokenCount }
        try queue.correct(from: estimate, to: tokenCount, tenant: tenant)
        remaining.withLock { $0.tokenCount = tokenCount }
    }

    /// - Parameter tokenCount: prompt tokens of the sequence.
    /// - Returns: nil where all places were used.
    package func take(tokenCount: Int = 0) -> QueuePlace? {
        let taken: Int? = remaining.withLock { remaining in
            guard remaining.count > 0 else { return nil }
            remaining.count -= 1
            // The last one has what is left of the estimate, should nobody have corrected it.
            let tokens =
                remaining.count == 0 ? remaining.tokenCount : min(tokenCount, remaining.tokenCount)
            remaining.tokenCount -= tokens
            return tokens
        }
        return taken.map { QueuePlace(queue: queue, tokenCount: $0, tenant: tenant) }
    }
}

/// One sequence's place in the queue; dropping it frees the place.
package final class QueuePlace: Sendable {
    private let queue: WaitingQueue
    private let tokenCount: Int
    private let tenant: String

    package init(queue: WaitingQueue, tokenCount: Int = 0, tenant: String = "") {
        self.queue = queue
        self.tokenCount = tokenCount
        self.tenant = tenant
    }

    deinit { queue.giveBack(1, tokenCount: tokenCount, tenant: tenant) }
}
