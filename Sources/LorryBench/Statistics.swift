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

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): the same
/// seed gives the same workload on every machine.
struct SeededNumbers: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

extension Duration {
    /// In seconds.
    var seconds: Double { self / .seconds(1) }
}
