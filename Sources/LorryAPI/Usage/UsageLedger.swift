import Foundation
import Logging
import LorryRegistry
import Synchronization

/// Counts what keys use, by day and adapter. Requests only add to memory; what came together is
/// written every few seconds, and at the end.
public final class UsageLedger: Sendable {
    /// What a kill -9 or a power failure may lose at most.
    public static let interval = Duration.seconds(5)
    /// How long days are kept.
    static let keptDayCount = 400
    /// Rows of one tenant and day; further adapters are counted together. Whoever asks for ever
    /// other sums of adapters shall not fill the disk.
    static let maximumRowCount = 10_000
    static let foldedAdapter = "_other"

    private struct State {
        var pending: [UsageKey: UsageCounts] = [:]
        /// What the present day's rows are, by tenant, as far as this start has seen them.
        var rows: [String: Set<UsageKey>] = [:]
        var day: String
    }

    private let registry: AdapterRegistry
    private let clock: @Sendable () -> Moment
    private let state: Mutex<State>

    init(registry: AdapterRegistry, clock: @escaping @Sendable () -> Moment) {
        self.registry = registry
        self.clock = clock
        state = Mutex(State(day: UTCDay(clock().date).text))
    }

    /// Counts one request that has ended.
    package func record(_ principal: Principal, adapter: String, _ counts: UsageCounts) {
        let day = UTCDay(clock().date).text
        state.withLock { state in
            if state.day != day {
                state.day = day
                state.rows = [:]
            }
            var key = UsageKey(
                day: day, tenant: principal.tenant, keyID: principal.keyID, adapter: adapter)
            let isKnown = state.rows[key.tenant]?.contains(key) ?? false
            if !isKnown, state.rows[key.tenant]?.count ?? 0 >= Self.maximumRowCount {
                key.adapter = Self.foldedAdapter
            }
            state.rows[key.tenant, default: []].insert(key)
            state.pending[key, default: UsageCounts()] += counts
        }
    }

    /// Writes what has come since the last time. What cannot be written is kept for the next time.
    public func flush() async throws(RegistryError) {
        let pending = state.withLock { state in
            defer { state.pending = [:] }
            return state.pending
        }
        guard !pending.isEmpty else { return }
        do {
            try await registry.addUsage(pending)
        } catch {
            state.withLock { state in
                for (key, counts) in pending {
                    state.pending[key, default: UsageCounts()] += counts
                }
            }
            throw error
        }
    }

    /// Tells the limits what tenants have used in the present day and month.
    public func restore(_ limits: AdmissionLimits) async throws(RegistryError) {
        let today = UTCDay(clock().date)
        var query = UsageQuery()
        query.since = today.firstOfMonth
        query.grouping = [.tenant, .day]
        query.limit = .max
        var used: [String: (today: Int, month: Int)] = [:]
        for row in try await registry.usage(query) {
            let tokenCount = row.counts.promptTokenCount + row.counts.completionTokenCount
            used[row.key.tenant, default: (0, 0)].month += tokenCount
            if row.key.day == today.text { used[row.key.tenant]?.today += tokenCount }
        }
        for (tenant, tokens) in used {
            limits.restore(
                tenant: tenant, tokensToday: tokens.today, tokensThisMonth: tokens.month)
        }
    }

    /// Writes every few seconds until the task is cancelled, and forgets old days.
    public func run(log: Logger) async {
        var sweptDay: UTCDay?
        var isFailing = false
        while !Task.isCancelled {
            do {
                try await flush()
                let today = UTCDay(clock().date)
                if sweptDay != today {
                    try await registry.sweepUsage(before: today.adding(days: -Self.keptDayCount))
                    sweptDay = today
                }
                isFailing = false
            } catch {
                if !isFailing {
                    log.error("usage cannot be written", metadata: ["reason": "\(error)"])
                }
                isFailing = true
            }
            try? await Task.sleep(for: Self.interval)
        }
    }
}
