/// The synthetic workload of S-LoRA (Sheng et al., arXiv 2311.03285, section 7.1): an open loop,
/// whose requests come whether the server keeps up or not.
///
/// Of a tenant there are ⌊rate · seconds⌋ requests. The gaps between them are of the Gamma
/// distribution with shape 1/cv² and scale cv²/rate; their adapter is ⌊N · x⌋ with x of the density
/// α · x^(α - 1), so that α = 1 makes all equally popular and a smaller α those with small numbers
/// popular; lengths are uniform. Tenants are independent of each other: what one of them asks does
/// not depend on which others there are.
public struct SLoRAWorkload: Sendable, Equatable {
    public var adapterCount: Int
    public var alpha: Double
    /// Coefficient of variation of the gaps: 1 is Poisson's arrivals, 0 equal gaps.
    public var cv: Double
    /// Requests per second of all tenants together.
    public var rate: Double
    public var seconds: Double
    public var lengths: TokenLengths
    /// How much each tenant asks relative to the others; one number per tenant.
    public var tenantLoads: [Double]
    public var seed: UInt64

    static let maximumRequestCount = 10_000_000

    /// - Parameter adapterCount: 0 asks the base model only.
    /// - Throws: `BenchError` naming the number that is out of range.
    public init(
        adapterCount: Int, alpha: Double = 1, cv: Double = 1, rate: Double, seconds: Double,
        lengths: TokenLengths, tenantLoads: [Double] = [1], seed: UInt64 = 0
    ) throws(BenchError) {
        guard adapterCount >= 0 else { throw BenchError("\(adapterCount) adapters: below 0") }
        guard alpha >= 0.01, alpha <= 100 else {
            throw BenchError("alpha \(alpha) is not between 0.01 and 100")
        }
        guard cv >= 0, cv <= 100 else { throw BenchError("cv \(cv) is not between 0 and 100") }
        guard rate > 0, seconds > 0, rate * seconds <= Double(Self.maximumRequestCount) else {
            throw BenchError(
                "a rate of \(rate) over \(seconds) s makes no number of requests between 1 and "
                    + "\(Self.maximumRequestCount)")
        }
        try TenantLoads.check(tenantLoads)
        self.adapterCount = adapterCount
        self.alpha = alpha
        self.cv = cv
        self.rate = rate
        self.seconds = seconds
        self.lengths = lengths
        self.tenantLoads = tenantLoads
        self.seed = seed
    }

    /// All requests in order of arrival.
    public func trace() -> [TraceRequest] {
        let all = tenantLoads.indices.flatMap(trace(ofTenant:))
        guard tenantLoads.count > 1 else { return all }
        // Of requests that come at once, that of the tenant with the smaller number comes first.
        return all.enumerated().sorted { left, right in
            let (a, b) = (left.element.arrivalSeconds, right.element.arrivalSeconds)
            return a == b ? left.offset < right.offset : a < b
        }.map(\.element)
    }

    /// What one tenant asks, the same whether the others are there or not.
    public func trace(ofTenant tenant: Int) -> [TraceRequest] {
        guard tenantLoads.indices.contains(tenant) else { return [] }
        let rate = rate * tenantLoads[tenant] / tenantLoads.reduce(0, +)
        let path = UInt64(tenant)
        var gaps = SeededNumbers(seed: seed, path: path, Purpose.gaps.rawValue)
        var adapters = SeededNumbers(seed: seed, path: path, Purpose.adapters.rawValue)
        var lengthNumbers = LengthNumbers(lengths, seed: seed, tenant: tenant)
        var arrival = 0.0
        return (0..<Int(rate * seconds)).map { _ in
            arrival +=
                cv == 0 ? 1 / rate : gaps.gamma(shape: 1 / (cv * cv), scale: cv * cv / rate)
            let adapter = Int(Double(adapterCount) * adapters.power(alpha))
            let (prompt, output) = lengthNumbers.next()
            return TraceRequest(
                arrivalSeconds: arrival,
                // What rounds up to N is the last one.
                adapter: adapterCount == 0 ? nil : min(adapter, adapterCount - 1),
                tenant: tenant, promptTokenCount: prompt, outputTokenCount: output)
        }
    }
}

/// Relative loads of tenants.
package enum TenantLoads {
    static func check(_ loads: [Double]) throws(BenchError) {
        guard !loads.isEmpty, loads.count <= 1000 else {
            throw BenchError("\(loads.count) tenants: not between 1 and 1000")
        }
        for load in loads where !(load > 0 && load <= 1e6) {
            throw BenchError("a tenant's load of \(load) is not above 0 and at most 1000000")
        }
    }

    /// Shares out `count` places in proportion to the loads, by largest remainder; nobody gets none.
    static func places(_ count: Int, _ loads: [Double]) -> [Int] {
        let total = loads.reduce(0, +)
        let exact = loads.map { Double(count) * $0 / total }
        var places = exact.map { max(1, Int($0)) }
        let order = exact.indices.sorted { left, right in
            let (a, b) = (exact[left] - Double(places[left]), exact[right] - Double(places[right]))
            return a == b ? left < right : a > b
        }
        for index in order.prefix(max(0, count - places.reduce(0, +))) { places[index] += 1 }
        return places
    }
}
