import LorryTensor

/// A case's figures, medians over all rounds, as `--json` writes them.
public struct CaseReport: Codable, Sendable, Equatable {
    public var prefillTokensPerSecond: Double
    public var decodeTokensPerSecond: Double
    public var prefillShareOfLimit: Double
    public var decodeShareOfLimit: Double
    public var prefillSeconds: Double
    public var prefillLimitSeconds: Double
    public var prefillSteps: Int
    public var firstTokenSecondsMedian: Double
    public var firstTokenSecondsP95: Double
    public var decodeSteps: Int
    public var decodeStepSecondsMedian: Double
    public var decodeStepSecondsP95: Double
    public var decodeLimitSeconds: Double
    public var decodeReadingSeconds: Double
    public var decodeComputingSeconds: Double
    public var decodeBytes: Double
    public var decodeOperations: Double
    public var decodePlanSeconds: Double
    public var decodeRunSeconds: Double
    public var decodeCommitSeconds: Double

    public init(_ rounds: [CaseMeasurement]) {
        func median(_ figure: (CaseMeasurement) -> Double) -> Double {
            Samples(rounds.map(figure)).median
        }
        func step(_ figure: KeyPath<DecodeMeasurement.Step, Double>) -> Double {
            median { $0.decode.samples(figure).median }
        }
        prefillTokensPerSecond = median { $0.prefill.tokensPerSecond }
        decodeTokensPerSecond = median { $0.decode.tokensPerSecond }
        prefillShareOfLimit = median { $0.prefill.shareOfLimit }
        decodeShareOfLimit = median { $0.decode.shareOfLimit }
        prefillSeconds = median { $0.prefill.seconds }
        prefillLimitSeconds = median { $0.prefill.limitSeconds }
        prefillSteps = rounds.first?.prefill.stepSeconds.sorted.count ?? 0
        firstTokenSecondsMedian = median { $0.prefill.firstTokenSeconds.median }
        firstTokenSecondsP95 = median { $0.prefill.firstTokenSeconds.percentile(0.95) }
        decodeSteps = rounds.first?.decode.steps.count ?? 0
        decodeStepSecondsMedian = step(\.seconds)
        decodeStepSecondsP95 = median { $0.decode.stepSeconds.percentile(0.95) }
        decodeLimitSeconds = step(\.limitSeconds)
        decodeReadingSeconds = step(\.readingSeconds)
        decodeComputingSeconds = step(\.computingSeconds)
        decodeBytes = step(\.byteCount)
        decodeOperations = step(\.operationCount)
        decodePlanSeconds = step(\.planSeconds)
        decodeRunSeconds = step(\.runSeconds)
        decodeCommitSeconds = step(\.commitSeconds)
    }

    enum CodingKeys: String, CodingKey {
        case prefillTokensPerSecond = "prefill_tokens_per_second"
        case decodeTokensPerSecond = "decode_tokens_per_second"
        case prefillShareOfLimit = "prefill_share_of_limit"
        case decodeShareOfLimit = "decode_share_of_limit"
        case prefillSeconds = "prefill_seconds"
        case prefillLimitSeconds = "prefill_limit_seconds"
        case prefillSteps = "prefill_steps"
        case firstTokenSecondsMedian = "first_token_seconds_median"
        case firstTokenSecondsP95 = "first_token_seconds_p95"
        case decodeSteps = "decode_steps"
        case decodeStepSecondsMedian = "decode_step_seconds_median"
        case decodeStepSecondsP95 = "decode_step_seconds_p95"
        case decodeLimitSeconds = "decode_limit_seconds"
        case decodeReadingSeconds = "decode_reading_seconds"
        case decodeComputingSeconds = "decode_computing_seconds"
        case decodeBytes = "decode_bytes"
        case decodeOperations = "decode_operations"
        case decodePlanSeconds = "decode_plan_seconds"
        case decodeRunSeconds = "decode_run_seconds"
        case decodeCommitSeconds = "decode_commit_seconds"
    }
}

/// What `lorry bench engine --json` writes: the figures of the case that was asked for stand at the
/// top; where that case has adapters, those of the base alone stand under `base`.
public struct EngineReport: Encodable, Sendable {
    public struct Setting: Codable, Sendable, Equatable {
        public var model: String
        public var weights: String
        public var adapterWeights: String
        public var kvCache: String
        public var level: String
        public var threads: Int
        public var batch: Int
        public var promptTokens: Int
        public var outputTokens: Int
        public var maxBatchTokens: Int
        public var repeatCount: Int
        public var seed: UInt64
        /// Nil without adapters.
        public var popularity: String?
        /// Distinct adapters in the batch.
        public var adapterCount: Int
        public var adapterBytes: Int

        public init(
            model: String, weights: String, formats: EngineBench.OperandFormats, level: String,
            threads: Int, workload: EngineBench.Workload, maxBatchTokens: Int, repeatCount: Int,
            adapters: [BenchAdapter]
        ) {
            self.model = model
            self.weights = weights
            adapterWeights = formats.adapters.rawValue
            kvCache = formats.kv.rawValue
            self.level = level
            self.threads = threads
            batch = workload.batch
            promptTokens = workload.promptTokenCount
            outputTokens = workload.outputTokenCount
            self.maxBatchTokens = maxBatchTokens
            self.repeatCount = repeatCount
            seed = workload.seed
            popularity = adapters.isEmpty ? nil : workload.popularity.rawValue
            adapterCount = adapters.count
            adapterBytes = adapters.reduce(0) { $0 + $1.cost.byteCount }
        }

        enum CodingKeys: String, CodingKey {
            case model, weights, level, threads, batch, seed, popularity
            case adapterWeights = "adapter_weights"
            case kvCache = "kv_cache"
            case promptTokens = "prompt_tokens"
            case outputTokens = "output_tokens"
            case maxBatchTokens = "max_batch_tokens"
            case repeatCount = "repeat"
            case adapterCount = "adapter_count"
            case adapterBytes = "adapter_bytes"
        }
    }

    public struct ShareOfBase: Codable, Sendable, Equatable {
        public var prefill: Double
        public var decode: Double
    }

    public var setting: Setting
    public var limits: LimitsReport
    /// The case that was asked for.
    public var figures: CaseReport
    /// Nil without adapters.
    public var base: CaseReport?
    public var shareOfBase: ShareOfBase?
    /// Beside the rounds, ascending; a share of the limit is of what was measured around its round.
    public var readBytesPerSecond: [Double]

    public init(setting: Setting, limits: LimitsReport, measurement: EngineMeasurement) {
        self.setting = setting
        self.limits = limits
        readBytesPerSecond = measurement.readBytesPerSecond.sorted
        guard !measurement.mixed.isEmpty else {
            figures = CaseReport(measurement.base)
            return
        }
        figures = CaseReport(measurement.mixed)
        base = CaseReport(measurement.base)
        shareOfBase = ShareOfBase(
            prefill: measurement.shareOfBase { $0.prefill.tokensPerSecond },
            decode: measurement.shareOfBase { $0.decode.tokensPerSecond })
    }

    private enum CodingKeys: String, CodingKey {
        case limits, base
        case shareOfBase = "share_of_base"
        case readBytesPerSecond = "read_bytes_per_second_beside_rounds"
    }

    /// Setting and figures lie at the top beside the other keys.
    public func encode(to encoder: any Encoder) throws {
        try setting.encode(to: encoder)
        try figures.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(limits, forKey: .limits)
        try container.encodeIfPresent(base, forKey: .base)
        try container.encodeIfPresent(shareOfBase, forKey: .shareOfBase)
        try container.encode(readBytesPerSecond, forKey: .readBytesPerSecond)
    }

    /// A line for each case.
    public var table: TextTable {
        var table = TextTable([
            ("", .left), ("prefill tok/s", .right), ("of limit", .right),
            ("first token p50", .right), ("p95", .right), ("decode tok/s", .right),
            ("of limit", .right), ("step p50", .right), ("p95", .right), ("limit", .right),
            ("bound by", .left),
        ])
        if let base { table.add(Self.row("base only", base)) }
        table.add(Self.row(setting.popularity ?? "base only", figures))
        if let shareOfBase {
            table.add([
                "share of base", Figures.percent(shareOfBase.prefill), "", "", "",
                Figures.percent(shareOfBase.decode),
            ])
        }
        return table
    }

    private static func row(_ name: String, _ figures: CaseReport) -> [String] {
        [
            name, Figures.significant(figures.prefillTokensPerSecond),
            Figures.percent(figures.prefillShareOfLimit),
            Figures.duration(figures.firstTokenSecondsMedian),
            Figures.duration(figures.firstTokenSecondsP95),
            Figures.significant(figures.decodeTokensPerSecond),
            Figures.percent(figures.decodeShareOfLimit),
            Figures.duration(figures.decodeStepSecondsMedian),
            Figures.duration(figures.decodeStepSecondsP95),
            Figures.duration(figures.decodeLimitSeconds),
            figures.decodeReadingSeconds >= figures.decodeComputingSeconds
                ? "reading" : "computing",
        ]
    }
}
