import Synchronization

extension PrometheusRegistry {
    /// A value that only grows. Whole amounts cost one atomic addition.
    public final class Counter: Sendable {
        private let whole = Atomic<Int64>(0)
        private let fractional = AtomicDouble()

        init() {}

        /// - Precondition: `amount` is not negative.
        public func increment(by amount: Int = 1) {
            precondition(amount >= 0, "a counter only grows")
            whole.wrappingAdd(Int64(amount), ordering: .relaxed)
        }

        /// - Precondition: `amount` is not negative.
        public func increment(by amount: Double) {
            precondition(amount >= 0, "a counter only grows")
            fractional.add(amount)
        }

        public var value: Double {
            Double(whole.load(ordering: .relaxed)) + fractional.load()
        }

        func clear() {
            whole.store(0, ordering: .relaxed)
            fractional.store(0)
        }
    }

    /// A value that goes up and down.
    public final class Gauge: Sendable {
        private let current = AtomicDouble()

        init() {}

        public func set(_ value: Double) { current.store(value) }
        public func set(_ value: Int) { current.store(Double(value)) }
        public func increment() { current.add(1) }
        public func decrement() { current.add(-1) }
        func add(_ amount: Double) { current.add(amount) }
        public var value: Double { current.load() }
    }

    /// Counts observations in buckets, with their sum. Durations are observed in seconds.
    public final class Histogram: Sendable {
        /// Ascending, finite; one more bucket above the last one takes the rest.
        let upperBounds: [Double]
        private let state: Mutex<State>

        struct State: Sendable {
            /// Observations of each bucket alone, not cumulative; one longer than `upperBounds`.
            var counts: [UInt64]
            var sum = 0.0
        }

        init(upperBounds: [Double]) {
            self.upperBounds = upperBounds
            state = Mutex(State(counts: Array(repeating: 0, count: upperBounds.count + 1)))
        }

        /// NaN counts in the last bucket and makes the sum NaN, as Prometheus' own clients do.
        public func observe(_ value: Double) {
            var bucket = 0
            while bucket < upperBounds.count, !(value <= upperBounds[bucket]) { bucket += 1 }
            state.withLock {
                $0.counts[bucket] += 1
                $0.sum += value
            }
        }

        /// Observes a duration in seconds.
        public func observe(_ duration: Duration) {
            let (seconds, attoseconds) = duration.components
            observe(Double(seconds) + Double(attoseconds) * 1e-18)
        }

        public var count: UInt64 { snapshot().counts.reduce(0, +) }
        public var sum: Double { snapshot().sum }

        func snapshot() -> State { state.withLock { $0 } }
    }
}

/// A double that any thread may change, by compare and exchange on its bits.
final class AtomicDouble: Sendable {
    private let bits = Atomic<UInt64>(0)

    func load() -> Double { Double(bitPattern: bits.load(ordering: .relaxed)) }
    func store(_ value: Double) { bits.store(value.bitPattern, ordering: .relaxed) }

    func add(_ amount: Double) {
        var old = bits.load(ordering: .relaxed)
        while true {
            let sum = (Double(bitPattern: old) + amount).bitPattern
            let (exchanged, original) = bits.weakCompareExchange(
                expected: old, desired: sum, ordering: .relaxed)
            if exchanged { return }
            old = original
        }
    }
}
