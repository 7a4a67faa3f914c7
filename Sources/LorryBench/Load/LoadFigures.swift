/// What a tenant got.
public struct TenantFigures: Codable, Sendable, Equatable {
    public var tenant: Int
    public var counts: LoadCounts
    /// Over the whole run.
    public var tokensPerSecond: Double
    public var firstToken: Spread
    public var interToken: Spread
    public var endToEnd: Spread

    init(tenant: Int, _ records: [LoadRecord], measured: [LoadRecord], seconds: Double) {
        self.tenant = tenant
        counts = LoadCounts(records)
        tokensPerSecond = Double(records.reduce(0) { $0 + $1.tokenCount }) / max(seconds, 1e-9)
        firstToken = Spread(measured.compactMap(\.firstTokenDelay))
        interToken = Spread(measured.lazy.flatMap(\.gaps).map(Double.init))
        endToEnd = Spread(measured.compactMap(\.latency))
    }

    enum CodingKeys: String, CodingKey {
        case tenant
        case counts = "requests"
        case tokensPerSecond = "tokens_per_second"
        case firstToken = "first_token_seconds"
        case interToken = "inter_token_seconds"
        case endToEnd = "end_to_end_seconds"
    }
}

/// How the run's adapters fared beside each other.
public struct AdapterFigures: Codable, Sendable, Equatable {
    /// Adapters that were asked.
    public var used: Int
    /// Requests of each.
    public var requests: Spread
    /// Each adapter's mean from arrival to first token.
    public var meanFirstToken: Spread
    /// First tokens of each adapter's first request in the run, which may have to load it.
    public var firstRequests: Spread
    /// First tokens of all further requests.
    public var furtherRequests: Spread

    init(_ records: [LoadRecord]) {
        var first: [Double] = []
        var further: [Double] = []
        var delays: [Int: [Double]] = [:]
        var counts: [Int: Int] = [:]
        let inOrder = records.filter { $0.sentSeconds != nil }
            .sorted { ($0.sentSeconds ?? 0) < ($1.sentSeconds ?? 0) }
        for record in inOrder {
            guard let adapter = record.request.adapter else { continue }
            counts[adapter, default: 0] += 1
            guard let delay = record.firstTokenDelay else { continue }
            if counts[adapter] == 1 { first.append(delay) } else { further.append(delay) }
            delays[adapter, default: []].append(delay)
        }
        used = counts.count
        requests = Spread(counts.values.map(Double.init))
        meanFirstToken = Spread(delays.values.map { $0.reduce(0, +) / Double($0.count) })
        firstRequests = Spread(first)
        furtherRequests = Spread(further)
    }

    enum CodingKeys: String, CodingKey {
        case used, requests
        case meanFirstToken = "mean_first_token_seconds"
        case firstRequests = "first_request_first_token_seconds"
        case furtherRequests = "further_request_first_token_seconds"
    }
}

/// What a user may expect: an answer is within it if its first token comes in time and its tokens
/// follow each other fast enough on average.
public struct ServiceObjective: Codable, Sendable, Equatable {
    /// From arrival.
    public var firstTokenSeconds: Double?
    /// Mean of an answer's gaps.
    public var interTokenSeconds: Double?

    public init(firstTokenSeconds: Double?, interTokenSeconds: Double?) {
        self.firstTokenSeconds = firstTokenSeconds
        self.interTokenSeconds = interTokenSeconds
    }

    func isMet(by record: LoadRecord) -> Bool {
        guard record.isFinished else { return false }
        if let firstTokenSeconds, record.firstTokenDelay ?? .infinity > firstTokenSeconds {
            return false
        }
        if let interTokenSeconds, record.meanGap ?? 0 > interTokenSeconds { return false }
        return true
    }

    enum CodingKeys: String, CodingKey {
        case firstTokenSeconds = "first_token_seconds"
        case interTokenSeconds = "inter_token_seconds"
    }
}
