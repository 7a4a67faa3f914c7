import CAllocationCounter
import Foundation
import LorryEngine
import LorryModel
import LorryTensor
import Testing

/// Holds steps that only decode to a checked-in number of allocations, so that nothing creeps in
/// that grows with rows or layers.
@Suite struct AllocationTests {
    enum Load: String, CaseIterable, CustomTestStringConvertible {
        case base
        /// Every filter and penalty.
        case filters
        /// Five alternatives for every token.
        case logprobs
        /// The base and eight adapters of several ranks and targets, side by side.
        case adapters

        var testDescription: String { rawValue }

        /// Allocations of `stepCount` steps of 32 sequences. What remains is the growth of tokens,
        /// events and block tables, and log-probabilities, which leave with their event.
        var baseline: Int {
            switch self {
            case .base: 160
            case .filters: 240
            case .logprobs: 2_250
            case .adapters: 160
            }
        }
    }

    private static let stepCount = 64
    private static let sequenceCount = 32

    private let reference: ReferenceModel
    private let workers = WorkerPool(threadCount: 1)

    init() throws {
        reference = try ReferenceModel(ReferenceModel.bundledRoot.appending(path: "llama"))
    }

    @Test(.enabled(if: allocation_counter_works(), "needs glibc"), arguments: Load.allCases)
    func decodingKeepsToItsBaseline(_ load: Load) throws {
        let mailbox = Mailbox()
        let loader = AdapterLoader(threadCount: 1) { mailbox.send(.loaded($0, $1)) }
        defer { loader.stop() }
        let core = try makeCore(loader, load, mailbox)
        // Loads, which the first plan starts, prompts, and the first growth of everything.
        #expect(core.step())
        while core.hasLoads {
            for message in mailbox.takeAll(waiting: true) { core.handle(message) }
        }
        for _ in 0..<48 { #expect(core.step()) }
        let before = allocation_count()
        for _ in 0..<Self.stepCount { _ = core.step() }
        let count = Int(allocation_count() - before)
        print("allocations of \(Self.stepCount) steps, \(load.rawValue): \(count)")
        #expect(core.statistics.runningCount == Self.sequenceCount)
        #expect(count <= load.baseline)
    }

    private func makeCore(
        _ loader: AdapterLoader, _ load: Load, _ mailbox: Mailbox
    ) throws -> EngineCore {
        let model = try DecoderModel(
            directory: reference.folder.appending(path: "base"), format: .f32, pool: workers)
        var configuration = EngineConfiguration(
            memoryBudgetByteCount: 64 << 20, maximumContextLength: model.contextLength)
        configuration.eventBufferCount = 4096
        let queue = WaitingQueue(capacity: Self.sequenceCount)
        let core = try EngineCore(
            model: model, configuration: configuration, workers: workers, queue: queue,
            loader: loader, observer: SilentObserver())
        let names = [
            "lora_all", "lora_bias", "lora_layers", "lora_patterns", "lora_qv", "lora_r64_q",
            "lora_regex", "rslora",
        ]
        let adapters = try reference.adapterReferences(names, model)
        try queue.take(Self.sequenceCount)
        for index in 0..<Self.sequenceCount {
            let place = index % (names.count + 1)
            let adapter = place < names.count ? adapters[names[place]] : nil
            core.handle(
                .submit(
                    Mailbox.Submission(
                        id: SequenceID(value: UInt64(index + 1)),
                        request: request(load, load == .adapters ? adapter : nil),
                        channel: EventChannel(capacity: configuration.eventBufferCount) { _ in },
                        place: QueuePlace(queue: queue), submitted: .now)))
        }
        return core
    }

    private func request(_ load: Load, _ adapter: AdapterReference?) -> GenerationRequest {
        var request = GenerationRequest(
            id: "test", promptTokens: reference.prompts[0], adapter: adapter,
            maximumTokenCount: 48 + Self.stepCount + 8)
        request.ignoresEndTokens = true
        request.sampling.seed = 3
        if load == .logprobs { request.logprobCount = 5 }
        guard load == .filters else { return request }
        request.sampling.temperature = 0.8
        request.sampling.topK = 40
        request.sampling.topP = 0.9
        request.sampling.minP = 0.001
        request.sampling.typicalP = 0.99
        request.sampling.repetitionPenalty = 1.1
        request.sampling.frequencyPenalty = 0.1
        request.sampling.logitBias = [3: 1]
        request.minimumTokenCount = 200
        return request
    }
}
