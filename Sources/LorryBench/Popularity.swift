/// How a batch's requests spread over adapters.
///
/// Distinct, identical, uniform and skewed are those of Punica (Chen et al., arXiv 2310.18547,
/// section 7); zipf is the usual law beside them.
public enum Popularity: String, Sendable, CaseIterable {
    /// Each request has its own adapter.
    case distinct
    /// All requests share one adapter.
    case identical
    /// ⌈√n⌉ adapters, equally popular.
    case uniform
    /// The i-th most popular adapter has a share in proportion to 1 / i: Zipf's law with exponent 1.
    case zipf
    /// An adapter is 1.5 times as popular as the next one, the least popular having one request.
    case skewed

    /// Requests of each adapter, most popular first; every number is above 0.
    public func counts(requestCount: Int) -> [Int] {
        guard requestCount > 0 else { return [] }
        switch self {
        case .distinct: return [Int](repeating: 1, count: requestCount)
        case .identical: return [requestCount]
        case .uniform: return Self.uniformCounts(requestCount)
        case .zipf: return Self.zipfCounts(requestCount)
        case .skewed: return Self.skewedCounts(requestCount)
        }
    }

    /// The adapter of each request, adapter 0 being the most popular, in a shuffled order.
    public func assignment(requestCount: Int, seed: UInt64) -> [Int] {
        var numbers = SeededNumbers(seed: seed)
        let grouped = counts(requestCount: requestCount).enumerated().flatMap { adapter, count in
            [Int](repeating: adapter, count: count)
        }
        return grouped.shuffled(using: &numbers)
    }

    private static func uniformCounts(_ requestCount: Int) -> [Int] {
        let adapterCount = Int(Double(requestCount).squareRoot().rounded(.up))
        return (0..<adapterCount).map { index in
            requestCount / adapterCount + (index < requestCount % adapterCount ? 1 : 0)
        }
    }

    /// Shares of 1 / i over as many adapters as requests, rounded by largest remainder; adapters
    /// that get no request fall away.
    private static func zipfCounts(_ requestCount: Int) -> [Int] {
        let harmonic = (1...requestCount).reduce(0.0) { $0 + 1 / Double($1) }
        let shares = (1...requestCount).map { Double(requestCount) / (Double($0) * harmonic) }
        var counts = shares.map { Int($0) }
        let missing = requestCount - counts.reduce(0, +)
        // Among equal remainders the more popular adapter comes first.
        let order = shares.indices.sorted { left, right in
            let (a, b) = (
                shares[left] - Double(counts[left]), shares[right] - Double(counts[right])
            )
            return a == b ? left < right : a > b
        }
        for index in order.prefix(missing) { counts[index] += 1 }
        return counts.filter { $0 > 0 }.sorted(by: >)
    }

    /// ⌊1.5⁰⌋, ⌊1.5¹⌋, … as long as they leave requests over, which one more adapter takes.
    private static func skewedCounts(_ requestCount: Int) -> [Int] {
        var counts: [Int] = []
        var remaining = requestCount
        var size = 1.0
        while Int(size) < remaining {
            counts.append(Int(size))
            remaining -= Int(size)
            size *= 1.5
        }
        return (counts + [remaining]).sorted(by: >)
    }
}
