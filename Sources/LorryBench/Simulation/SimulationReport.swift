import LorryEngine

/// What a simulated run gave, as `lorry bench simulate --json` writes it.
public struct SimulationReport: Encodable, Sendable {
    public struct Part: Encodable, Sendable {
        public var name: String
        public var requests: Int
        public var finished: Int
        public var failed: Int
        /// The queue was full.
        public var refused: Int
        public var requestsPerSecond: Double
        /// Of answers.
        public var tokensPerSecond: Double
        public var firstTokenSeconds: Spread
        public var interTokenSeconds: Spread
        public var requestSeconds: Spread

        enum CodingKeys: String, CodingKey {
            case name, requests, finished, failed, refused
            case requestsPerSecond = "requests_per_second"
            case tokensPerSecond = "tokens_per_second"
            case firstTokenSeconds = "first_token_seconds"
            case interTokenSeconds = "inter_token_seconds"
            case requestSeconds = "request_seconds"
        }

        init(_ name: String, _ tenant: SimulationRecorder.Tenant, _ seconds: Double) {
            self.name = name
            requests = tenant.requestCount
            finished = tenant.finishedCount
            failed = tenant.failedCount
            refused = tenant.refusedCount
            requestsPerSecond = Double(tenant.finishedCount) / max(seconds, 1e-9)
            tokensPerSecond = Double(tenant.outputTokenCount) / max(seconds, 1e-9)
            firstTokenSeconds = Spread(tenant.firstToken)
            interTokenSeconds = Spread(tenant.interToken)
            requestSeconds = Spread(tenant.total)
        }
    }

    /// All tenants together.
    public let all: Part
    public let tenants: [Part]
    /// Until the last answer.
    public let seconds: Double
    /// Share of it in which a step ran.
    public let busyShare: Double
    public let steps: Int
    public let loads: Int
    public let evictions: Int
    public let preemptions: Int
    /// Of the prompt tokens that were looked up, those whose keys and values were there; 0 without
    /// a prefix cache.
    public let foundTokenShare: Double
    /// What the simulation itself took.
    public let wallSeconds: Double

    private enum CodingKeys: String, CodingKey {
        case tenants, seconds, steps, loads, evictions, preemptions
        case busyShare = "busy_share"
        case foundTokenShare = "found_token_share"
        case wallSeconds = "wall_seconds"
    }

    init(
        _ state: SimulationRecorder.State, _ engine: EngineStatistics, seconds: Double,
        busy: Double, stepCount: Int, wallSeconds: Double
    ) {
        var sum = SimulationRecorder.Tenant()
        for tenant in state.tenants.values { sum.add(tenant) }
        all = Part("all", sum, seconds)
        tenants = state.tenants.sorted { $0.key < $1.key }.map { Part($0.key, $0.value, seconds) }
        self.seconds = seconds
        busyShare = busy / max(seconds, 1e-9)
        steps = stepCount
        loads = state.loadCount
        evictions = state.evictionCount
        preemptions = engine.preemptionCount
        foundTokenShare =
            Double(engine.prefixCacheHitCount) / Double(max(engine.prefixCacheQueryCount, 1))
        self.wallSeconds = wallSeconds
    }

    /// The figures of all tenants stand at the top.
    public func encode(to encoder: any Encoder) throws {
        try all.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(tenants, forKey: .tenants)
        try container.encode(seconds, forKey: .seconds)
        try container.encode(busyShare, forKey: .busyShare)
        try container.encode(steps, forKey: .steps)
        try container.encode(loads, forKey: .loads)
        try container.encode(evictions, forKey: .evictions)
        try container.encode(preemptions, forKey: .preemptions)
        try container.encode(foundTokenShare, forKey: .foundTokenShare)
        try container.encode(wallSeconds, forKey: .wallSeconds)
    }

    /// A line for all, and one for each tenant where there are several.
    public var table: TextTable {
        var table = TextTable([
            ("", .left), ("requests", .right), ("refused", .right), ("failed", .right),
            ("req/s", .right), ("tok/s", .right), ("first token p50", .right), ("p95", .right),
            ("p99", .right), ("inter-token p50", .right), ("p95", .right), ("p99", .right),
            ("request p50", .right), ("p95", .right),
        ])
        for part in [all] + (tenants.count > 1 ? tenants : []) {
            table.add(
                [
                    part.name, "\(part.requests)", "\(part.refused)", "\(part.failed)",
                    Figures.significant(part.requestsPerSecond),
                    Figures.significant(part.tokensPerSecond),
                ] + part.firstTokenSeconds.cells.prefix(3) + part.interTokenSeconds.cells.prefix(3)
                    + part.requestSeconds.cells.prefix(2))
        }
        return table
    }
}

extension SimulationRecorder.Tenant {
    fileprivate mutating func add(_ other: SimulationRecorder.Tenant) {
        firstToken.add(other.firstToken)
        interToken.add(other.interToken)
        total.add(other.total)
        requestCount += other.requestCount
        finishedCount += other.finishedCount
        failedCount += other.failedCount
        refusedCount += other.refusedCount
        outputTokenCount += other.outputTokenCount
        promptTokenCount += other.promptTokenCount
    }
}
