import LorryRegistry

/// Refills steadily, a whole bucket in a minute, and never holds more than that. What was taken
/// beyond its level is a debt, which is refilled first.
package struct TokenBucket: Sendable, Equatable {
    package private(set) var capacity: Int
    private var level: Double
    private var updated: ContinuousClock.Instant

    /// A full bucket.
    package init(capacity: Int, at now: ContinuousClock.Instant) {
        self.capacity = capacity
        level = Double(capacity)
        updated = now
    }

    /// Changes the capacity; what is taken stays taken.
    package mutating func resize(to capacity: Int, at now: ContinuousClock.Instant) {
        refill(at: now)
        level += Double(capacity) - Double(self.capacity)
        self.capacity = capacity
    }

    package mutating func refill(at now: ContinuousClock.Instant) {
        let seconds = max(0, (now - updated) / .seconds(1))
        level = min(Double(capacity), level + seconds * Double(capacity) / 60)
        updated = now
    }

    /// Takes at any rate, into debt where need be.
    package mutating func take(_ count: Int) { level -= Double(count) }

    package mutating func giveBack(_ count: Int) {
        level = min(Double(capacity), level + Double(count))
    }

    /// Whole ones that can be taken now.
    package var remaining: Int { max(0, Int(level + Self.tolerance)) }

    /// How long until `count` can be taken, if nobody else takes any. `count` fits the capacity.
    package func wait(for count: Int) -> Duration {
        let missing = Double(count) - level
        return missing <= Self.tolerance ? .zero : .seconds(missing * 60 / Double(capacity))
    }

    /// How long until it is full.
    package var reset: Duration { wait(for: capacity) }

    /// For what a sum of refills loses in rounding.
    private static let tolerance = 1e-6
}

/// What was taken in the present day or month of UTC.
package struct TokenQuota: Sendable, Equatable {
    package enum Period: Sendable {
        case day, month
    }

    private let period: Period
    private var today: UTCDay
    package private(set) var used: Int

    package init(_ period: Period, used: Int = 0, on day: UTCDay) {
        self.period = period
        self.used = used
        today = day
    }

    /// Begins anew where the period has ended. Clocks that are set back begin nothing.
    package mutating func advance(to day: UTCDay) {
        guard day > today else { return }
        if !contains(day) { used = 0 }
        today = day
    }

    private func contains(_ day: UTCDay) -> Bool {
        switch period {
        case .day: day == today
        case .month: day.month == today.month
        }
    }

    package mutating func take(_ count: Int) { used += count }

    /// - Parameter day: when it was taken; what an earlier period gave is nobody's any more.
    package mutating func giveBack(_ count: Int, from day: UTCDay) {
        if contains(day) { used = max(0, used - count) }
    }

    /// When the next period begins.
    package var end: UTCDay {
        switch period {
        case .day: today.adding(days: 1)
        case .month: today.firstOfMonth.adding(days: 31).firstOfMonth
        }
    }
}
