import LorryTensor

/// A machine's limits beside a run.
///
/// Where others share the memory, what it gives changes within seconds: a share of what was measured
/// minutes ago would tell more about them than about the run. Arithmetic does not change.
public struct LimitMeter {
    /// As measured at first.
    public let first: MachineLimits
    private let readBytesPerSecond: () -> Double

    /// - Parameter readBytesPerSecond: measures reading anew.
    public init(_ first: MachineLimits, readBytesPerSecond: @escaping () -> Double) {
        self.first = first
        self.readBytesPerSecond = readBytesPerSecond
    }

    /// Measures reading again on threads of its own.
    public init(measuringFrom first: MachineLimits) {
        let pool = WorkerPool(threadCount: first.threadCount)
        self.init(first) {
            MachineLimits.measureReading(pool: pool, effort: .milliseconds(60))
        }
    }

    /// Bytes per second, now.
    func measureReading() -> Double { readBytesPerSecond() }

    /// The limits of a time that began and ended with these rates of reading.
    func limits(between start: Double, and end: Double) -> MachineLimits {
        var limits = first
        limits.readBytesPerSecond = (start + end) / 2
        return limits
    }
}
