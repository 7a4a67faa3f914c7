/// One request of a workload, without its words: what a server is asked, by whom and when.
public struct TraceRequest: Codable, Sendable, Equatable {
    /// Since the run's start, in seconds. Of a closed loop 0: its requests come when others end.
    public var arrivalSeconds: Double
    /// Which of the run's adapters, counted from 0; nil is the base model.
    public var adapter: Int?
    /// Which of the run's tenants, counted from 0.
    public var tenant: Int
    public var promptTokenCount: Int
    public var outputTokenCount: Int

    public init(
        arrivalSeconds: Double, adapter: Int?, tenant: Int = 0, promptTokenCount: Int,
        outputTokenCount: Int
    ) {
        self.arrivalSeconds = arrivalSeconds
        self.adapter = adapter
        self.tenant = tenant
        self.promptTokenCount = promptTokenCount
        self.outputTokenCount = outputTokenCount
    }

    enum CodingKeys: String, CodingKey {
        case arrivalSeconds = "arrival_seconds"
        case adapter, tenant
        case promptTokenCount = "prompt_tokens"
        case outputTokenCount = "output_tokens"
    }

    /// A missing tenant is 0.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        arrivalSeconds = try container.decode(Double.self, forKey: .arrivalSeconds)
        adapter = try container.decodeIfPresent(Int.self, forKey: .adapter)
        tenant = try container.decodeIfPresent(Int.self, forKey: .tenant) ?? 0
        promptTokenCount = try container.decode(Int.self, forKey: .promptTokenCount)
        outputTokenCount = try container.decode(Int.self, forKey: .outputTokenCount)
    }
}

/// Lengths that a workload's requests have, each length in a range equally often.
public struct TokenLengths: Sendable, Equatable {
    public var prompt: ClosedRange<Int>
    public var output: ClosedRange<Int>

    /// - Throws: `BenchError` where a length is not between 1 and 2²⁴.
    public init(
        prompt: ClosedRange<Int> = 8...128, output: ClosedRange<Int> = 8...128
    ) throws(BenchError) {
        for (name, range) in [("prompt", prompt), ("output", output)]
        where range.lowerBound < 1 || range.upperBound > 1 << 24 {
            throw BenchError(
                "\(name) lengths \(range.lowerBound)-\(range.upperBound) are not between 1 and "
                    + "\(1 << 24)")
        }
        self.prompt = prompt
        self.output = output
    }
}

/// What random numbers are drawn for: each purpose has a generator of its own, so that one setting
/// changes nothing of what the others decide.
enum Purpose: UInt64 {
    case gaps = 1
    case adapters, promptLengths, outputLengths, promptTokens, sharedPrefix, sample
}

/// Draws the lengths of one tenant's requests.
struct LengthNumbers {
    private let lengths: TokenLengths
    private var prompts: SeededNumbers
    private var outputs: SeededNumbers

    init(_ lengths: TokenLengths, seed: UInt64, tenant: Int) {
        self.lengths = lengths
        let tenant = UInt64(tenant)
        prompts = SeededNumbers(seed: seed, path: tenant, Purpose.promptLengths.rawValue)
        outputs = SeededNumbers(seed: seed, path: tenant, Purpose.outputLengths.rawValue)
    }

    mutating func next() -> (prompt: Int, output: Int) {
        (prompts.integer(in: lengths.prompt), outputs.integer(in: lengths.output))
    }
}
