import ArgumentParser
import Foundation
import LorryBench
import LorryConfiguration
import LorryEngine
import LorrySynth
import LorryTensor

/// `lorry bench simulate`: the scheduler and the pool in a time of their own.
struct BenchSimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Replay a workload through the scheduler with a cost model, without a model.",
        discussion: """
            What is decided is what the server would decide; what steps and loads take comes from \
            the sizes of model and adapters and the limits of a machine. --calibrate takes those \
            from 'lorry bench engine --json', the other flags change single ones. The workload is \
            S-LoRA's, or that of --trace. Minutes of a busy server take seconds.
            """)

    struct WorkloadOptions: ParsableArguments {
        @Option(help: "Adapters; 0 asks the base only.")
        var adapters = 100
        @Option(help: "Ranks of the adapters, in turn, such as 8,16.")
        var ranks = "8,16"
        @Option(help: "Popularity: 1 is uniform, a smaller number prefers few.")
        var alpha = 1.0
        @Option(help: "Coefficient of variation of the gaps between requests.")
        var cv = 1.0
        @Option(help: "Requests per second.")
        var rate = 10.0
        @Option(help: "Seconds in which requests come.")
        var duration = 60.0
        @Option(help: "Tokens of a prompt, such as 8-128.")
        var promptTokens = "8-128"
        @Option(help: "Tokens of an answer.")
        var outputTokens = "8-128"
        @Option(help: "Tokens with which every prompt begins, as far as it is so long.")
        var sharedPrefixTokens = 0
        @Option(help: "How much each tenant asks relative to the others, such as 10,1.")
        var tenantLoads = "1"
        @Option(help: "Weights of the tenants, such as 1,2.")
        var tenantWeights = ""
        @Option(help: "The same seed gives the same requests.")
        var seed: UInt64 = 0
        @Option(help: "A trace as JSON lines, in place of the workload.", completion: .file())
        var trace: String?
    }

    struct EngineOptions: ParsableArguments {
        @Option(help: "One pool for KV blocks and adapters.")
        var memoryBudget = "1GiB"
        @Option(help: "Tokens of one step at most.")
        var maxBatchTokens = 512
        @Option(help: "Sequences that run at a time at most.")
        var maxRunning = 64
        @Option(help: "Sequences that wait at most.")
        var maxWaiting = 1024
        @Option(help: "Prompt tokens that wait at most.")
        var maxWaitingTokens = 1 << 20
        @Option(help: "Milliseconds of a step at most while answers are generated.")
        var stepTarget = 500.0
        @Option(help: "fair or arrival.")
        var policy = "fair"
        @Flag(help: "Keep keys and values for prompts that begin with the same tokens.")
        var prefixCache = false
        @Option(help: "What leaves the pool first: gdsf or lru.")
        var eviction = "gdsf"
    }

    @Option(help: "\(ModelShape.presets.map(\.name).joined(separator: ", ")).")
    var shape = "smollm2-135m"
    @Option(help: "\(WeightFormat.allCases.map(\.rawValue).joined(separator: ", ")).")
    var weights = "int8"
    @OptionGroup(title: "Machine") var machine: SimulatedMachineOptions
    @OptionGroup(title: "Workload") var workload: WorkloadOptions
    @OptionGroup(title: "Engine") var engine: EngineOptions
    @Option(help: "Writes every figure to this file.", completion: .file())
    var json: String?

    func validate() throws {
        try BenchCommand.checkWritable(json, as: "--json")
        let counts: [(String, Int, ClosedRange<Int>)] = [
            ("--adapters", workload.adapters, 0...10_000_000),
            ("--shared-prefix-tokens", workload.sharedPrefixTokens, 0...1 << 24),
            ("--max-batch-tokens", engine.maxBatchTokens, 1...1_000_000),
            ("--max-running", engine.maxRunning, 1...1_000_000),
            ("--max-waiting", engine.maxWaiting, 1...100_000_000),
            ("--max-waiting-tokens", engine.maxWaitingTokens, 1...1_000_000_000_000),
        ]
        for (flag, value, range) in counts { try BenchCommand.check(flag, value, range) }
        try BenchCommand.check("--step-target", engine.stepTarget, 1...1e9)
        guard workload.sharedPrefixTokens == 0 || engine.prefixCache else {
            throw ValidationError("--shared-prefix-tokens tells nothing without --prefix-cache")
        }
        try machine.check(format())
    }

    private func format() throws -> WeightFormat {
        guard let format = WeightFormat(rawValue: weights) else {
            throw ValidationError("--weights: '\(weights)' is no format")
        }
        return format
    }

    func run() throws {
        do {
            try simulate()
        } catch {
            FileHandle.standardError.write(Data("lorry bench simulate: \(error)\n".utf8))
            throw ExitCode.failure
        }
    }

    private func simulate() throws {
        let format = try format()
        var setting = Simulator.Setting(
            model: SimulatedModel(try dimensions(), weights: format),
            machine: try machine.machine(format), engine: try configuration(),
            ranks: try Self.numbers(workload.ranks, "--ranks", upTo: 512).map { Int($0) })
        setting.weights = try Self.numbers(workload.tenantWeights, "--tenant-weights")
        setting.sharedPrefixTokenCount = workload.sharedPrefixTokens
        let tenantCount = try Self.numbers(workload.tenantLoads, "--tenant-loads").count
        guard setting.weights.isEmpty || setting.weights.count == tenantCount else {
            throw StartError(
                "--tenant-weights: \(setting.weights.count) weights for \(tenantCount) tenants")
        }
        let requests = try trace()
        let simulator = try Simulator(setting)
        let report = simulator.run(requests)
        if let fault = simulator.findFault() { throw StartError("the pool is wrong: \(fault)") }
        for line in report.table.lines { print(line) }
        print(
            "\(Figures.duration(report.seconds)) in \(Figures.duration(report.wallSeconds)); "
                + "\(report.steps) steps, busy \(Figures.percent(report.busyShare)); "
                + "\(report.loads) loads, \(report.evictions) evictions, "
                + "\(report.preemptions) preemptions")
        if engine.prefixCache {
            print("prompt tokens from the cache: \(Figures.percent(report.foundTokenShare))")
        }
        try BenchCommand.write(report, to: json)
    }

    private func dimensions() throws -> SimulatedModel.Dimensions {
        let shape = try ModelShape.named(shape)
        return SimulatedModel.Dimensions(
            layerCount: shape.layerCount, hiddenSize: shape.hiddenSize,
            headCount: shape.headCount, kvHeadCount: shape.kvHeadCount, headDim: shape.headDim,
            intermediateSize: shape.intermediateSize, vocabularySize: shape.vocabularySize)
    }

    private func configuration() throws -> EngineConfiguration {
        guard let budget = ByteSize.parse(engine.memoryBudget) else {
            throw StartError("--memory-budget: '\(engine.memoryBudget)' is no size such as 4GiB")
        }
        guard let policy = FairQueue.Policy(rawValue: engine.policy) else {
            throw StartError("--policy: '\(engine.policy)' is neither fair nor arrival")
        }
        guard let eviction = EvictionOrder(rawValue: engine.eviction) else {
            throw StartError("--eviction: '\(engine.eviction)' is neither gdsf nor lru")
        }
        guard budget <= 1 << 44 else {
            throw StartError("--memory-budget: \(engine.memoryBudget) is more than 16TiB")
        }
        var result = EngineConfiguration(
            memoryBudgetByteCount: budget, maximumBatchTokenCount: engine.maxBatchTokens,
            maximumRunningCount: engine.maxRunning, maximumWaitingCount: engine.maxWaiting,
            maximumContextLength: 1 << 24)
        result.maximumWaitingTokenCount = engine.maxWaitingTokens
        result.stepTarget = .seconds(engine.stepTarget / 1000)
        result.hasSeveralTenants =
            policy == .fair && (workload.trace != nil || workload.tenantLoads.contains(","))
        result.cachesPrefixes = engine.prefixCache
        result.policy = policy
        result.eviction = eviction
        return result
    }

    private func trace() throws -> [TraceRequest] {
        if let path = workload.trace {
            guard let data = FileManager.default.contents(atPath: path) else {
                throw StartError("--trace \(path): cannot be read")
            }
            return try TraceFile.requests(data)
        }
        return try SLoRAWorkload(
            adapterCount: workload.adapters, alpha: workload.alpha, cv: workload.cv,
            rate: workload.rate, seconds: workload.duration,
            lengths: TokenLengths(
                prompt: Self.range(workload.promptTokens, "--prompt-tokens"),
                output: Self.range(workload.outputTokens, "--output-tokens")),
            tenantLoads: Self.numbers(workload.tenantLoads, "--tenant-loads"), seed: workload.seed
        ).trace()
    }

    private static func numbers(
        _ text: String, _ flag: String, upTo greatest: Double = 1e9
    ) throws -> [Double] {
        try text.split(separator: ",").map { part in
            guard let number = Double(part), number > 0, number <= greatest else {
                throw StartError("\(flag): '\(part)' is no number above 0, at most \(greatest)")
            }
            return number
        }
    }

    private static func range(_ text: String, _ flag: String) throws -> ClosedRange<Int> {
        let ends = text.split(separator: "-").compactMap { Int($0) }
        guard let first = ends.first, let last = ends.last, ends.count <= 2, 1 <= first,
            first <= last
        else { throw StartError("\(flag): '\(text)' is no range such as 8-128") }
        return first...last
    }
}
