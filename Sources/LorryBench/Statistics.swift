/// Order statistics of measurements.
public struct Samples: Sendable, Equatable {
    /// Ascending.
    public let sorted: [Double]

    public init(_ values: some Sequence<Double>) { sorted = values.sorted() }

    public var isEmpty: Bool { sorted.isEmpty }

    /// The middle one, or the mean of the middle two; 0 of nothing.
    public var median: Double {
        guard !sorted.isEmpty else { return 0 }
        let middle = sorted.count / 2
        return sorted.count % 2 == 1
            ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    /// The smallest value that at least `share` of all do not exceed; 0 of nothing.
    ///
    /// - Parameter share: from 0 to 1.
    public func percentile(_ share: Double) -> Double {
        guard !sorted.isEmpty else { return 0 }
        let rank = (share * Double(sorted.count)).rounded(.up)
        return sorted[min(max(Int(rank) - 1, 0), sorted.count - 1)]
    }
}

extension Duration {
    /// In seconds.
    var seconds: Double { self / .seconds(1) }
}
