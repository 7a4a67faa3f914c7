/// How values spread.
public struct Spread: Codable, Sendable, Equatable {
    public var count: Int
    public var mean: Double
    public var p50: Double
    public var p95: Double
    public var p99: Double
    public var max: Double

    public init(_ values: some Sequence<Double>) {
        let samples = Samples(values)
        self.init(
            count: samples.sorted.count, sum: samples.sorted.reduce(0, +),
            max: samples.sorted.last ?? 0, percentile: samples.percentile)
    }

    /// In seconds; percentiles to half a percent.
    init(_ durations: DurationCounts) {
        self.init(
            count: durations.count, sum: durations.sum, max: durations.max,
            percentile: durations.percentile)
    }

    private init(count: Int, sum: Double, max: Double, percentile: (Double) -> Double) {
        self.count = count
        mean = count == 0 ? 0 : sum / Double(count)
        p50 = percentile(0.5)
        p95 = percentile(0.95)
        p99 = percentile(0.99)
        self.max = max
    }

    var cells: [String] {
        count == 0
            ? ["-", "-", "-", "-"] : [p50, p95, p99, max].map(Figures.duration)
    }
}
