import Foundation
import LorryEngine
import LorryModel
import LorryTensor

/// Measures whole steps of the engine that is served, without HTTP.
///
/// A case is measured in two runs. In the first all requests end with their first token: the time
/// of its steps is that of prefill. In the second they go on, and the steps that compute one token
/// of each sequence and nothing else are those of decode: continuous batching lets early sequences
/// decode while others are still in prefill, which such steps leave out.
public final class EngineBench {
    public struct Workload: Sendable, Equatable {
        /// Requests that are submitted together.
        public var batch: Int
        public var promptTokenCount: Int
        /// Tokens of each answer, the first of them from prefill.
        public var outputTokenCount: Int
        /// How requests spread over the adapters, where there are any.
        public var popularity: Popularity
        /// Decides the prompts and which request has which adapter.
        public var seed: UInt64

        public init(
            batch: Int, promptTokenCount: Int, outputTokenCount: Int,
            popularity: Popularity = .distinct, seed: UInt64 = 0
        ) {
            self.batch = batch
            self.promptTokenCount = promptTokenCount
            self.outputTokenCount = outputTokenCount
            self.popularity = popularity
            self.seed = seed
        }
    }

    /// How adapters, keys and values are held.
    public struct OperandFormats: Sendable, Equatable {
        public var adapters: OperandFormat
        public var kv: OperandFormat

        /// - Parameters: nil takes the format that goes with the model's.
        public init(
            model: DecoderModel, adapters: OperandFormat? = nil, kv: OperandFormat? = nil
        ) {
            self.adapters = adapters ?? model.format.operandFormat
            self.kv = kv ?? model.format.operandFormat
        }
    }

    private let workload: Workload
    private let cost: StepWork
    private let limits: LimitMeter
    private let engine: Engine
    private let recorder = StepRecorder()
    private let prompts: [[Int32]]
    private let adapters: [BenchAdapter]
    /// The adapter of each request; empty where there are none.
    private let assignment: [Int]
    /// Steps that keep a sequence decoding until the last prompt is through.
    private let leadTokenCount: Int

    /// - Parameters:
    ///   - formats: those of `adapters` among them.
    ///   - adapters: at least as many as the popularity asks for; empty measures the base alone.
    ///   - maximumBatchTokenCount: of a step; nil takes the server's default.
    ///   - workers: used by the engine alone from now on.
    /// - Throws: `BenchError` where the workload does not fit the model or the adapters.
    public init(
        model: DecoderModel, formats: OperandFormats, adapters: [BenchAdapter],
        workload: Workload, maximumBatchTokenCount: Int?, limits: LimitMeter, workers: WorkerPool
    ) throws {
        let counts =
            adapters.isEmpty ? [] : workload.popularity.counts(requestCount: workload.batch)
        guard counts.count <= adapters.count else {
            throw BenchError(
                "--popularity \(workload.popularity.rawValue) needs \(counts.count) adapters for "
                    + "\(workload.batch) requests; there are \(adapters.count)")
        }
        var configuration = EngineConfiguration(
            memoryBudgetByteCount: 0, maximumContextLength: model.contextLength)
        if let maximumBatchTokenCount {
            configuration.maximumBatchTokenCount = maximumBatchTokenCount
        }
        let budget = configuration.maximumBatchTokenCount
        guard workload.batch < budget else {
            throw BenchError("--batch \(workload.batch) must be below --max-batch-tokens \(budget)")
        }
        let promptTokens = workload.batch * workload.promptTokenCount
        leadTokenCount =
            workload.batch == 1 ? 0 : promptTokens / (budget - workload.batch + 1) + 32
        let length = workload.promptTokenCount + workload.outputTokenCount + leadTokenCount + 8
        guard length <= model.contextLength else {
            throw BenchError(
                "--prompt-tokens and --output-tokens need a context of \(length) tokens; the model "
                    + "has \(model.contextLength)")
        }
        cost = StepWork(model: model, formats: formats)
        configuration.kvFormat = formats.kv
        self.adapters = Array(adapters.prefix(counts.count))
        configuration.memoryBudgetByteCount = Self.memoryBudget(
            model, formats.kv, sequenceLength: length, batch: workload.batch,
            adapters: self.adapters)
        configuration.maximumRunningCount = max(
            configuration.maximumRunningCount, workload.batch)
        configuration.maximumWaitingCount = max(
            configuration.maximumWaitingCount, workload.batch)
        // Every round has the same prompts, which are to be computed each time.
        configuration.cachesPrefixes = false
        // Nobody reads while the engine is measured: all events of an answer must fit.
        configuration.eventBufferCount = length + 8
        engine = try Engine(
            model: model, configuration: configuration, workers: workers, observer: recorder)
        var numbers = SeededNumbers(seed: workload.seed)
        let vocabulary = Int32(model.configuration.vocabularySize)
        prompts = (0..<workload.batch).map { _ in
            (0..<workload.promptTokenCount).map { _ in
                Int32.random(in: 0..<vocabulary, using: &numbers)
            }
        }
        assignment =
            adapters.isEmpty
            ? []
            : workload.popularity.assignment(
                requestCount: workload.batch, seed: workload.seed &+ 1)
        self.workload = workload
        self.limits = limits
    }

    /// Most tokens that a step computes.
    public var maximumBatchTokenCount: Int { engine.configuration.maximumBatchTokenCount }
    /// Distinct adapters in use.
    public var adapterCount: Int { adapters.count }

    /// Room for all sequences and adapters at once, and a third more.
    private static func memoryBudget(
        _ model: DecoderModel, _ kvFormat: OperandFormat, sequenceLength: Int, batch: Int,
        adapters: [BenchAdapter]
    ) -> Int {
        let configuration = model.configuration
        let block = KVLayout(
            layerCount: configuration.layerCount, kvHeadCount: configuration.kvHeadCount,
            headDim: configuration.headDim, format: kvFormat
        ).blockByteCount
        let blocks = batch * (sequenceLength / KVLayout.blockSize + 2) + 64
        let adapterBytes = adapters.reduce(0) { $0 + $1.reference.byteCount + block }
        return (blocks * block + adapterBytes) / 3 * 4
    }

    /// Measures the base alone and then, where there are adapters, the mixed batch; `repeatCount`
    /// times in turn, so that both meet the same disturbances. Before and after each run memory is
    /// measured anew.
    ///
    /// - Parameter progress: told what is about to be measured.
    /// - Throws: `BenchError` where a request fails.
    public func measure(
        repeatCount: Int, progress: (String) -> Void = { _ in }
    ) async throws -> EngineMeasurement {
        let isMixed = !adapters.isEmpty
        progress("warming up")
        try await warmUp(mixed: false)
        if isMixed { try await warmUp(mixed: true) }
        var base: [CaseMeasurement] = []
        var mixed: [CaseMeasurement] = []
        for round in 1...max(1, repeatCount) {
            progress("base only, round \(round)")
            base.append(try await measureCase(mixed: false))
            guard isMixed else { continue }
            progress("with adapters, round \(round)")
            mixed.append(try await measureCase(mixed: true))
        }
        return EngineMeasurement(base: base, mixed: mixed)
    }

    /// Ends the engine's thread.
    public func shutdown() async { await engine.shutdown(drainDeadline: .seconds(1)) }

    // MARK: - Runs

    private func measureCase(mixed: Bool) async throws -> CaseMeasurement {
        var reading = [limits.measureReading()]
        let prefill = try await run(
            mixed: mixed, maximumTokenCount: 1, goal: .ended(workload.batch))
        reading.append(limits.measureReading())
        let stepCount = max(1, workload.outputTokenCount - 1)
        let decode = try await runDecode(stepCount: stepCount, mixed: mixed)
        reading.append(limits.measureReading())
        return CaseMeasurement(
            prefill: prefillMeasurement(
                prefill, mixed: mixed, limits: limits.limits(between: reading[0], and: reading[1])),
            decode: decodeMeasurement(
                decode, mixed: mixed, limits: limits.limits(between: reading[1], and: reading[2])),
            readBytesPerSecond: reading)
    }

    /// Tries again where this thread was held up while it submitted, so that the first sequence was
    /// through before the last one began.
    private func runDecode(stepCount: Int, mixed: Bool) async throws -> StepRecorder.Recording {
        for _ in 1..<8 {
            do {
                return try await run(
                    mixed: mixed, maximumTokenCount: leadTokenCount + stepCount + 2,
                    goal: .fullSteps(stepCount, sequenceCount: workload.batch))
            } catch {
                guard error as? BenchError == .endedEarly else { throw error }
            }
        }
        throw BenchError.endedEarly
    }

    /// Loads the adapters, and touches all memory that steps use.
    private func warmUp(mixed: Bool) async throws {
        _ = try await run(
            mixed: mixed, maximumTokenCount: 2,
            promptTokenCount: min(16, workload.promptTokenCount),
            goal: .ended(workload.batch))
    }

    private func run(
        mixed: Bool, maximumTokenCount: Int, promptTokenCount: Int? = nil, goal: StepRecorder.Goal
    ) async throws -> StepRecorder.Recording {
        recorder.begin(goal)
        let reservation = try engine.reserve(count: workload.batch)
        var generations: [Generation] = []
        for (index, prompt) in prompts.enumerated() {
            var request = GenerationRequest(
                id: "\(index)", promptTokens: Array(prompt.prefix(promptTokenCount ?? .max)),
                adapter: mixed ? adapters[assignment[index]].reference : nil,
                maximumTokenCount: maximumTokenCount)
            request.ignoresEndTokens = true
            request.sampling.temperature = 0
            generations.append(try engine.submit(request, reservation: reservation))
        }
        let recording: StepRecorder.Recording
        do {
            recording = try await recorder.recording()
        } catch {
            await Self.end(generations)
            throw error
        }
        await Self.end(generations)
        return recording
    }

    /// Returns once the engine has forgotten them.
    private static func end(_ generations: [Generation]) async {
        for generation in generations {
            generation.stop()
            for await _ in generation {}
        }
    }

    // MARK: - Figures

    private func prefillMeasurement(
        _ recording: StepRecorder.Recording, mixed: Bool, limits: MachineLimits
    ) -> PrefillMeasurement {
        let steps = recording.steps.filter { $0.promptTokenCount > 0 }
        let works = StepWork.prefillSpans(
            tokenCounts: steps.map(\.promptTokenCount),
            promptTokenCount: workload.promptTokenCount, sequenceCount: workload.batch
        ).map { work($0, mixed: mixed) }
        let limit = works.reduce(0) { $0 + $1.limitSeconds(limits) }
        let total = steps.first.flatMap { first in steps.last.map { $0.end - first.start } }
        return PrefillMeasurement(
            tokenCount: workload.batch * workload.promptTokenCount, seconds: total?.seconds ?? 0,
            limitSeconds: limit, stepSeconds: Samples(steps.map { ($0.end - $0.start).seconds }),
            firstTokenSeconds: Samples(recording.firstTokenLatencies.map(\.seconds)))
    }

    private func decodeMeasurement(
        _ recording: StepRecorder.Recording, mixed: Bool, limits: MachineLimits
    ) -> DecodeMeasurement {
        let batch = workload.batch
        var steps: [DecodeMeasurement.Step] = []
        for (index, step) in recording.steps.enumerated()
        where step.promptTokenCount == 0 && step.decodeTokenCount == batch {
            // What lies between two steps belongs to the later one.
            let start = index > 0 ? recording.steps[index - 1].end : step.start
            // All are within a few tokens of each other, and attention's cost is linear in them.
            let length = workload.promptTokenCount + step.generatedCount / batch
            let spans = (0..<batch).map {
                StepWork.Span(sequence: $0, start: length - 1, count: 1, logitCount: 1)
            }
            let work = work(spans, mixed: mixed)
            steps.append(
                .init(
                    seconds: (step.end - start).seconds, limitSeconds: work.limitSeconds(limits),
                    readingSeconds: work.byteCount / limits.readBytesPerSecond,
                    computingSeconds: work.computingSeconds(limits),
                    planSeconds: step.plan.seconds, runSeconds: step.run.seconds,
                    commitSeconds: step.commit.seconds, byteCount: work.byteCount,
                    operationCount: work.operationCount))
        }
        return DecodeMeasurement(batch: batch, steps: steps)
    }

    private func work(_ spans: [StepWork.Span], mixed: Bool) -> Work {
        cost.work(
            spans, assignment: mixed ? assignment : [], adapters: adapters.map(\.cost))
    }
}
