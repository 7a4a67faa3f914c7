import Synchronization

/// Counts places in the bounded queue of sequences that wait to run, and their prompts' tokens.
/// `state` is guarded by its mutex.
///
/// Where several tenants share it, each may take only a multiple of what is free
/// (`TenantShare.waitingRatio`): whoever floods it leaves places to others.
package final class WaitingQueue: Sendable {
    package struct Bounds: Sendable {
        package var count: Int
        package var tokenCount: Int
        package var isShared: Bool

        package init(count: Int, tokenCount: Int = .max, isShared: Bool = false) {
            self.count = count
            self.tokenCount = tokenCount
            self.isShared = isShared
        }
    }

    private struct Taken {
        var count = 0
        var tokenCount = 0
    }

    private struct State {
        var taken = Taken()
        var byTenant: [String: Taken] = [:]
        var isClosed = false
        /// Exponentially weighted interval between sequences that start to run.
        var startInterval: Duration?
        var lastStart: ContinuousClock.Instant?
    }

    private let state = Mutex(State())
    package let bounds: Bounds

    package init(bounds: Bounds) { self.bounds = bounds }

    package convenience init(capacity: Int) { self.init(bounds: Bounds(count: capacity)) }

    /// - Parameter tokenCount: prompt tokens of all the sequences together.
    /// - Throws: `EngineError.queueFull`, `.queueTooSmall` or `.shuttingDown`.
    package func take(
        _ count: Int, tokenCount: Int = 0, tenant: String = ""
    ) throws(EngineError) {
        let error: EngineError? = state.withLock { state in
            if state.isClosed { return .shuttingDown }
            guard count <= bounds.count else {
                return .queueTooSmall(sequenceCount: count, limit: bounds.count)
            }
            guard hasRoom(count, tokenCount, tenant, state) else {
                return .queueFull(retryAfter: retryAfter(tenant, state))
            }
            Self.add(count, tokenCount, tenant, &state)
            return nil
        }
        if let error { throw error }
    }

    /// Puts a true number of prompt tokens in the place of the estimate that was taken; the places
    /// stay taken.
    ///
    /// - Throws: `EngineError.queueFull` where there are more, and no room for them.
    package func correct(
        from estimate: Int, to tokenCount: Int, tenant: String
    ) throws(EngineError) {
        let error: EngineError? = state.withLock { state in
            Self.add(0, -estimate, tenant, &state)
            guard tokenCount <= estimate || hasRoomForTokens(tokenCount, tenant, state) else {
                Self.add(0, estimate, tenant, &state)
                return .queueFull(retryAfter: retryAfter(tenant, state))
            }
            Self.add(0, tokenCount, tenant, &state)
            return nil
        }
        if let error { throw error }
    }

    /// Whether so much more may be taken.
    private func hasRoom(
        _ count: Int, _ tokenCount: Int, _ tenant: String, _ state: State
    ) -> Bool {
        let free = bounds.count - state.taken.count
        guard count <= free, hasRoomForTokens(tokenCount, tenant, state) else { return false }
        return !bounds.isShared
            || TenantShare.allows(
                state.byTenant[tenant]?.count ?? 0, count, free: free,
                ratio: TenantShare.waitingRatio)
    }

    private func hasRoomForTokens(_ tokenCount: Int, _ tenant: String, _ state: State) -> Bool {
        // Else a prompt longer than the bound could never be answered.
        guard state.taken.tokenCount > 0 else { return true }
        let free = bounds.tokenCount - state.taken.tokenCount
        guard tokenCount <= free else { return false }
        let own = state.byTenant[tenant]?.tokenCount ?? 0
        return !bounds.isShared || own == 0
            || TenantShare.allows(own, tokenCount, free: free, ratio: TenantShare.waitingRatio)
    }

    private static func add(
        _ count: Int, _ tokenCount: Int, _ tenant: String, _ state: inout State
    ) {
        state.taken.count += count
        state.taken.tokenCount += tokenCount
        var own = state.byTenant[tenant] ?? Taken()
        own.count += count
        own.tokenCount += tokenCount
        state.byTenant[tenant] = own.count == 0 && own.tokenCount == 0 ? nil : own
    }

    /// Half the time that the queue took to drain lately, within 1 to 60 seconds. A tenant who has
    /// more than its share waits for its own sequences.
    private func retryAfter(_ tenant: String, _ state: State) -> Duration {
        guard let interval = state.startInterval else { return .seconds(1) }
        return min(max(interval * state.taken.count / 2, .seconds(1)), .seconds(60))
    }

    package func giveBack(_ count: Int, tokenCount: Int = 0, tenant: String = "") {
        state.withLock { Self.add(-count, -tokenCount, tenant, &$0) }
    }

    package func noteStart(_ now: ContinuousClock.Instant) {
        state.withLock { state in
            if let last = state.lastStart {
                let interval = now - last
                state.startInterval =
                    state.startInterval.map { ($0 * 7 + interval) / 8 } ?? interval
            }
            // Where nobody waits, the time until the next start says nothing about the queue.
            state.lastStart = state.taken.count > 0 ? now : nil
        }
    }

    package func close() { state.withLock { $0.isClosed = true } }

    package var takenCount: Int { state.withLock { $0.taken.count } }
    package var takenTokenCount: Int { state.withLock { $0.taken.tokenCount } }
}
