/// What a simulated run gave, as `lorry bench simulate --json` writes it.
public struct SimulationReport: Encodable, Sendable {
    public struct Percentiles: Encodable, Sendable, Equatable {
        public var p50: Double
        public var p95: Double
        public var p99: Double

        init(_ counts: DurationCounts) {
            p50 = counts.percentile(0.5)
            p95 = counts.percentile(0.95)
            p99 = counts.percentile(0.99)
        }
    }

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
        public var firstTokenSeconds: Percentiles
        public var interTokenSeconds: Percentiles
        public var requestSeconds: Percentiles

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
            firstTokenSeconds = Percentiles(tenant.firstToken)
            interTokenSeconds = Percentiles(tenant.interToken)
            requestSeconds = Percentiles(tenant.total)
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
    /// What the simulation itself took.
    public let wallSeconds: Double

    private enum CodingKeys: String, CodingKey {
        case tenants, seconds, steps, loads, evictions, preemptions
        case busyShare = "busy_share"
        case wallSeconds = "wall_seconds"
    }

    init(
        _ state: SimulationRecorder.State, seconds: Double, busy: Double, stepCount: Int,
        preemptionCount: Int, wallSeconds: Double
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
        preemptions = preemptionCount
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
                ] + Self.row(part.firstTokenSeconds) + Self.row(part.interTokenSeconds)
                    + Self.row(part.requestSeconds).dropLast())
        }
        return table
    }

    private static func row(_ percentiles: Percentiles) -> [String] {
        [percentiles.p50, percentiles.p95, percentiles.p99].map(Figures.duration)
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
