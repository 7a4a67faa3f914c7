/// A closed loop with the popularities of Punica (Chen et al., arXiv 2310.18547, section 7): a fixed
/// number of requests is always under way, and the next one comes when one ends.
///
/// Each tenant has a loop of its own, with a share of the places. Its requests are drawn in rounds
/// of as many as it has places, so that those under way follow the popularity. With `distinct` the
/// rounds go on through all adapters.
public struct PunicaWorkload: Sendable, Equatable {
    public var adapterCount: Int
    public var popularity: Popularity
    public var lengths: TokenLengths
    public var seed: UInt64
    /// How many requests of each tenant are under way.
    public let places: [Int]

    /// - Parameters:
    ///   - inFlight: requests that are under way, of all tenants together.
    ///   - adapterCount: 0 asks the base model only.
    /// - Throws: `BenchError` where the popularity needs more adapters, or a number is out of range.
    public init(
        adapterCount: Int, popularity: Popularity, inFlight: Int, lengths: TokenLengths,
        tenantLoads: [Double] = [1], seed: UInt64 = 0
    ) throws(BenchError) {
        try TenantLoads.check(tenantLoads)
        guard inFlight >= tenantLoads.count, inFlight <= 100_000 else {
            throw BenchError(
                "\(inFlight) requests in flight: not between \(tenantLoads.count) and 100000")
        }
        places = TenantLoads.places(inFlight, tenantLoads)
        let needed = places.map { popularity.counts(requestCount: $0).count }.max() ?? 0
        guard adapterCount == 0 || adapterCount >= needed else {
            throw BenchError(
                "\(popularity.rawValue) with \(inFlight) requests in flight needs \(needed) "
                    + "adapters, and \(adapterCount) are to be used")
        }
        self.adapterCount = adapterCount
        self.popularity = popularity
        self.lengths = lengths
        self.seed = seed
    }

    /// The endless requests of one tenant.
    public func requests(ofTenant tenant: Int) -> ClosedLoopRequests {
        ClosedLoopRequests(self, tenant: tenant)
    }
}

/// What one tenant of a closed loop asks, one request after the other without an end.
public struct ClosedLoopRequests: Sequence, IteratorProtocol, Sendable {
    private let workload: PunicaWorkload
    private let tenant: Int
    private let roundSize: Int
    private var lengthNumbers: LengthNumbers
    private var seeds: SeededNumbers
    private var round: [Int] = []
    private var position = 0
    private var firstAdapter = 0

    init(_ workload: PunicaWorkload, tenant: Int) {
        self.workload = workload
        self.tenant = tenant
        roundSize = workload.places.indices.contains(tenant) ? workload.places[tenant] : 1
        lengthNumbers = LengthNumbers(workload.lengths, seed: workload.seed, tenant: tenant)
        seeds = SeededNumbers(
            seed: workload.seed, path: UInt64(tenant), Purpose.adapters.rawValue)
    }

    public mutating func next() -> TraceRequest? {
        let (prompt, output) = lengthNumbers.next()
        return TraceRequest(
            arrivalSeconds: 0, adapter: nextAdapter(), tenant: tenant, promptTokenCount: prompt,
            outputTokenCount: output)
    }

    private mutating func nextAdapter() -> Int? {
        guard workload.adapterCount > 0 else { return nil }
        if position == round.count {
            if workload.popularity == .distinct, !round.isEmpty {
                firstAdapter = (firstAdapter + roundSize) % workload.adapterCount
            }
            round = workload.popularity.assignment(requestCount: roundSize, seed: seeds.next())
            position = 0
        }
        defer { position += 1 }
        return (firstAdapter + round[position]) % workload.adapterCount
    }
}
