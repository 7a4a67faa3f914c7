import Foundation

/// Counts of durations in classes that are half a percent wide: of any number of them, in little
/// memory.
struct DurationCounts {
    private static let width = 0.005
    private static let least = 1e-6
    private var counts: [Int] = []
    private(set) var count = 0
    private(set) var sum = 0.0
    private(set) var max = 0.0

    mutating func add(_ duration: Duration) {
        let seconds = duration.seconds
        let index = Int(log(Swift.max(seconds, Self.least) / Self.least) / Self.width)
        if index >= counts.count {
            counts.append(contentsOf: repeatElement(0, count: index + 1 - counts.count))
        }
        counts[index] += 1
        count += 1
        sum += seconds
        max = Swift.max(max, seconds)
    }

    mutating func add(_ other: DurationCounts) {
        let missing = Swift.max(other.counts.count - counts.count, 0)
        counts.append(contentsOf: repeatElement(0, count: missing))
        for (index, count) in other.counts.enumerated() { counts[index] += count }
        count += other.count
        sum += other.sum
        max = Swift.max(max, other.max)
    }

    /// The middle of the class in which the percentile lies; 0 of nothing.
    ///
    /// - Parameter share: from 0 to 1.
    func percentile(_ share: Double) -> Double {
        var left = Int((share * Double(count)).rounded(.up))
        for (index, count) in counts.enumerated() {
            left -= count
            if left <= 0, count > 0 {
                return Swift.min(Self.least * exp((Double(index) + 0.5) * Self.width), max)
            }
        }
        return 0
    }
}
