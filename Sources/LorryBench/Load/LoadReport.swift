/// What `lorry bench load --json` writes.
public struct LoadReport: Codable, Sendable, Equatable {
    /// Finished requests over the time from the first sending to the last end.
    public var requestsPerSecond: Double
    /// Tokens of answers, whatever became of them, over the same time.
    public var tokensPerSecond: Double
    public var failed: Int
    /// Each from the request's arrival. Of requests that arrived after the warm-up.
    public var firstToken: Spread
    public var interToken: Spread
    public var endToEnd: Spread
    public var seconds: Double
    public var steady: Steady
    public var requests: LoadCounts
    public var failures: [Failure]
    public var objective: ServiceObjective
    /// Of the requests that were sent after the warm-up; cancelled ones do not count.
    public var objectiveShare: Double
    public var promptTokens: Int
    public var cachedPromptTokens: Int
    public var tenants: [TenantFigures]
    public var adapters: AdapterFigures
    public var client: Client
    public var wasStopped: Bool
    public var setting: LoadSetting
    public var verification: LoadVerification?
    public var series: LoadSeries

    /// The part of a run between its warm-up and its last arrival, while the load lasts.
    public struct Steady: Codable, Sendable, Equatable {
        public var from: Double
        public var to: Double
        public var requestsPerSecond: Double
        public var tokensPerSecond: Double

        enum CodingKeys: String, CodingKey {
            case from, to
            case requestsPerSecond = "requests_per_second"
            case tokensPerSecond = "tokens_per_second"
        }
    }

    public struct Failure: Codable, Sendable, Equatable {
        public var reason: String
        public var count: Int
    }

    /// What the measuring itself took.
    public struct Client: Codable, Sendable, Equatable {
        public var processorSeconds: Double
        /// Of one core.
        public var processorShare: Double
        public var connections: Int
        public var worstLagSeconds: Double

        enum CodingKeys: String, CodingKey {
            case processorSeconds = "processor_seconds"
            case processorShare = "processor_share"
            case connections
            case worstLagSeconds = "worst_lag_seconds"
        }
    }

    /// - Parameter warmUp: seconds at the run's start of which requests do not count in spreads.
    public init(
        _ result: LoadResult, setting: LoadSetting, objective: ServiceObjective, warmUp: Double = 0
    ) {
        let records = result.ledger.records
        let measured = records.filter { $0.arrivalSeconds >= warmUp && $0.sentSeconds != nil }
        let first = records.compactMap(\.sentSeconds).min() ?? 0
        let last = records.compactMap(\.endSeconds).max() ?? 0
        seconds = max(last - first, 1e-9)
        requests = result.ledger.counts
        failed = requests.failed
        requestsPerSecond = Double(requests.finished) / seconds
        tokensPerSecond = Double(records.reduce(0) { $0 + $1.tokenCount }) / seconds
        firstToken = Spread(measured.compactMap(\.firstTokenDelay))
        interToken = Spread(measured.lazy.flatMap(\.gaps).map(Double.init))
        endToEnd = Spread(measured.compactMap(\.latency))
        steady = Steady(records, from: warmUp, to: result.lastArrivalSeconds)
        failures = Self.failures(records)
        self.objective = objective
        let judged = measured.filter { $0.outcome != .cancelled }
        objectiveShare =
            judged.isEmpty
            ? 0 : Double(judged.count(where: objective.isMet(by:))) / Double(judged.count)
        let answered = records.filter(\.isFinished)
        promptTokens = answered.reduce(0) { $0 + $1.request.promptTokenCount }
        cachedPromptTokens = answered.reduce(0) { $0 + $1.cachedPromptTokenCount }
        let (byTenant, span) = (Dictionary(grouping: records, by: \.request.tenant), seconds)
        tenants = byTenant.keys.sorted().map { tenant in
            TenantFigures(
                tenant: tenant, byTenant[tenant] ?? [],
                measured: measured.filter { $0.request.tenant == tenant }, seconds: span)
        }
        adapters = AdapterFigures(records)
        client = Client(
            processorSeconds: result.clientProcessorSeconds,
            processorShare: result.clientProcessorSeconds / max(result.seconds, 1e-9),
            connections: result.connectionCount, worstLagSeconds: result.worstLag)
        wasStopped = result.wasStopped
        self.setting = setting
        series = LoadSeries(records, seconds: result.seconds)
    }

    private static func failures(_ records: [LoadRecord]) -> [Failure] {
        var counts: [String: Int] = [:]
        for record in records {
            if case .failed(let reason) = record.outcome { counts[reason, default: 0] += 1 }
        }
        return counts.map { Failure(reason: $0.key, count: $0.value) }
            .sorted { ($1.count, $0.reason) < ($0.count, $1.reason) }
    }

    enum CodingKeys: String, CodingKey {
        case requestsPerSecond = "requests_per_second"
        case tokensPerSecond = "tokens_per_second"
        case failed
        case firstToken = "first_token_seconds"
        case interToken = "inter_token_seconds"
        case endToEnd = "end_to_end_seconds"
        case seconds, steady, requests, failures
        case objective = "slo"
        case objectiveShare = "share_within_slo"
        case promptTokens = "prompt_tokens"
        case cachedPromptTokens = "cached_prompt_tokens"
        case tenants, adapters, client
        case wasStopped = "stopped"
        case setting, verification, series
    }
}

extension LoadReport.Steady {
    init(_ records: [LoadRecord], from: Double, to: Double) {
        self.from = from
        self.to = max(from, to)
        let span = self.from..<self.to
        var tokens = 0
        var finished = 0
        for record in records {
            if record.isFinished, let end = record.endSeconds, span.contains(end) { finished += 1 }
            guard var time = record.firstTokenSeconds else { continue }
            if span.contains(time) { tokens += 1 }
            for gap in record.gaps {
                time += Double(gap)
                if span.contains(time) { tokens += 1 }
            }
        }
        let length = max(self.to - self.from, 1e-9)
        requestsPerSecond = span.isEmpty ? 0 : Double(finished) / length
        tokensPerSecond = span.isEmpty ? 0 : Double(tokens) / length
    }
}

extension LoadCounts {
    init(_ records: some Sequence<LoadRecord>) {
        self.init()
        for record in records {
            planned += 1
            if record.sentSeconds != nil { sent += 1 }
            switch record.outcome {
            case .unsent: unsent += 1
            case .underWay: underWay += 1
            case .finished: finished += 1
            case .failed: failed += 1
            case .cancelled: cancelled += 1
            }
        }
    }
}

/// With what a run was made.
public struct LoadSetting: Codable, Sendable, Equatable {
    public var url: String
    public var http: Int
    /// slora, punica or trace.
    public var workload: String
    public var model: String
    public var adapters: Int
    public var alpha: Double?
    public var cv: Double?
    public var rate: Double?
    public var duration: Double?
    public var popularity: String?
    public var inFlight: Int?
    public var promptTokens: [Int]?
    public var outputTokens: [Int]?
    public var sharedPrefixTokens: Int
    public var vocabularySize: Int
    public var tenantLoads: [Double]
    public var onlyTenant: Int?
    public var trace: String?
    public var warmUp: Double
    public var drain: Double?
    public var timeout: Double
    public var seed: UInt64

    public init(url: String, http: Int, workload: String, model: String, adapters: Int) {
        self.url = url
        self.http = http
        self.workload = workload
        self.model = model
        self.adapters = adapters
        sharedPrefixTokens = 0
        vocabularySize = 0
        tenantLoads = [1]
        warmUp = 0
        timeout = 0
        seed = 0
    }

    enum CodingKeys: String, CodingKey {
        case url, http, workload, model, adapters, alpha, cv, rate, duration, popularity, trace
        case drain, timeout, seed
        case inFlight = "in_flight"
        case promptTokens = "prompt_tokens"
        case outputTokens = "output_tokens"
        case sharedPrefixTokens = "shared_prefix_tokens"
        case vocabularySize = "vocabulary_size"
        case tenantLoads = "tenant_loads"
        case onlyTenant = "only_tenant"
        case warmUp = "warm_up"
    }
}
