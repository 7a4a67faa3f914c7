/// A run over time, in equal intervals.
public struct LoadSeries: Codable, Sendable, Equatable {
    public struct Interval: Codable, Sendable, Equatable {
        public var tokens = 0
        public var sent = 0
        public var finished = 0
        public var failed = 0
        /// Under way at the interval's end.
        public var inFlight = 0
        /// Of the first tokens that came in it, from arrival; nil where none came.
        public var firstTokenP50: Double?
        public var firstTokenP95: Double?

        enum CodingKeys: String, CodingKey {
            case tokens, sent, finished, failed
            case inFlight = "in_flight"
            case firstTokenP50 = "first_token_seconds_p50"
            case firstTokenP95 = "first_token_seconds_p95"
        }
    }

    public var intervalSeconds: Double
    public var intervals: [Interval]

    enum CodingKeys: String, CodingKey {
        case intervalSeconds = "interval_seconds"
        case intervals
    }

    /// - Parameter intervalCount: about how many there shall be.
    public init(_ records: [LoadRecord], seconds: Double, intervalCount: Int = 80) {
        let width = Self.roundWidth(seconds / Double(max(intervalCount, 1)))
        let count = max(1, Int((seconds / width).rounded(.up)))
        func index(_ time: Double) -> Int { min(max(Int(time / width), 0), count - 1) }
        var intervals = [Interval](repeating: Interval(), count: count)
        var delays = [[Double]](repeating: [], count: count)
        var changes = [Int](repeating: 0, count: count)
        for record in records {
            guard let sent = record.sentSeconds else { continue }
            intervals[index(sent)].sent += 1
            changes[index(sent)] += 1
            if let end = record.endSeconds {
                changes[index(end)] -= 1
                switch record.outcome {
                case .finished: intervals[index(end)].finished += 1
                case .failed: intervals[index(end)].failed += 1
                default: break
                }
            }
            guard var time = record.firstTokenSeconds else { continue }
            delays[index(time)].append(time - record.arrivalSeconds)
            intervals[index(time)].tokens += 1
            for gap in record.gaps {
                time += Double(gap)
                intervals[index(time)].tokens += 1
            }
        }
        var inFlight = 0
        for position in intervals.indices {
            inFlight += changes[position]
            intervals[position].inFlight = inFlight
            guard !delays[position].isEmpty else { continue }
            let samples = Samples(delays[position])
            intervals[position].firstTokenP50 = samples.percentile(0.5)
            intervals[position].firstTokenP95 = samples.percentile(0.95)
        }
        intervalSeconds = width
        self.intervals = intervals
    }

    /// The next of 1, 2, 5, 10, … tenths of a second.
    static func roundWidth(_ least: Double) -> Double {
        var decade = 0.1
        while decade < 1e6 {
            for factor in [1.0, 2, 5] where decade * factor >= least { return decade * factor }
            decade *= 10
        }
        return decade
    }
}
