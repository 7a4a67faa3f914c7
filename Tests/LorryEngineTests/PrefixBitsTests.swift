import Foundation
import LorryEngine
import LorryModel
import LorryTensor
import Testing

/// Answers have the same bits whether keys and values were computed, shared, copied, or lost and
/// computed again.
@Suite struct PrefixBitsTests {
    private let reference: ReferenceModel
    private let workers = WorkerPool(threadCount: 2)

    init() throws {
        reference = try ReferenceModel(ReferenceModel.bundledRoot.appending(path: "llama"))
    }

    private func engine(
        caches: Bool, kvFormat: OperandFormat, budget: Int = 64 << 20, batchTokenCount: Int = 256
    ) throws -> Engine {
        let model = try DecoderModel(
            directory: reference.folder.appending(path: "base"), format: .f32, pool: workers)
        var configuration = EngineConfiguration(
            memoryBudgetByteCount: budget, maximumContextLength: model.contextLength)
        configuration.kvFormat = kvFormat
        configuration.cachesPrefixes = caches
        configuration.maximumBatchTokenCount = batchTokenCount
        return try Engine(
            model: model, configuration: configuration, workers: workers,
            observer: SilentObserver())
    }

    private func request(
        _ tokens: [Int32], count: Int = 12, adapter: AdapterReference? = nil
    ) -> GenerationRequest {
        var request = GenerationRequest(
            id: "test", promptTokens: tokens, adapter: adapter, maximumTokenCount: count)
        request.sampling.temperature = 0.8
        request.sampling.seed = 5
        request.ignoresEndTokens = true
        request.logprobCount = 3
        return request
    }

    /// Prompts that share whole blocks, parts of blocks, all, or nothing.
    private func prompts() -> [[Int32]] {
        var random = SeededGenerator(seed: 9)
        let tokens = (0..<200).map { _ in Int32.random(in: 3..<500, using: &random) }
        let common = Array(tokens[..<70])
        return [
            common, common, common + tokens[100..<120], Array(common[..<64]), Array(common[..<40]),
            Array(common[..<39] + tokens[150..<180]), Array(tokens[120..<150]),
            common + tokens[100..<108], common + [5, 9] + tokens[100..<110],
            common + [5, 9] + tokens[100..<130], [5, 9] + common,
        ]
    }

    /// Of LoRA, with virtual tokens whose keys and values are computed or given, and one that acts
    /// from tokens 5 and 9 on.
    private func adapters(_ engine: Engine) throws -> [AdapterReference?] {
        let names = ["lora_qv", "lora_all", "prompt_tuning", "prefix_tuning", "oft", "alora"]
        let known = try reference.adapterReferences(names, engine.model)
        return [nil] + names.map { known[$0] }
    }

    /// One request after the other, so that each finds what those before it have left.
    private func answers(_ engine: Engine) async throws -> [[GeneratedToken]] {
        var answers: [[GeneratedToken]] = []
        for adapter in try adapters(engine) {
            for prompt in prompts() {
                answers.append(try await engine.tokens(request(prompt, adapter: adapter)))
                // A second turn, with the answer as a part of the prompt.
                let turn = prompt + (answers.last ?? []).map(\.id) + [7, 8, 9]
                answers.append(try await engine.tokens(request(turn, adapter: adapter)))
            }
        }
        return answers
    }

    @Test(arguments: OperandFormat.allCases)
    func cachedAnswersHaveTheSameBits(_ format: OperandFormat) async throws {
        let plain = try engine(caches: false, kvFormat: format)
        let expected = try await answers(plain)
        #expect(plain.statistics().prefixCacheQueryCount == 0)
        #expect(plain.statistics().cachedKVBlockCount == 0)
        await plain.shutdown(drainDeadline: .seconds(5))
        for batchTokenCount in [5, 256] {
            let cached = try engine(
                caches: true, kvFormat: format, batchTokenCount: batchTokenCount)
            for _ in 0..<2 { #expect(try await answers(cached) == expected) }
            #expect(await cached.findFault() == nil)
            await cached.shutdown(drainDeadline: .seconds(5))
            let statistics = cached.statistics()
            #expect(statistics.prefixCacheHitCount > statistics.prefixCacheQueryCount / 2)
            #expect(statistics.usedKVBlockCount == 0)
            #expect(statistics.cachedKVBlockCount > 0)
        }
    }

    /// Many at once in a pool that is too small for them: preempted sequences find again what is
    /// left of their own blocks, and adapters and blocks drive each other out.
    @Test(arguments: OperandFormat.allCases)
    func preemptedAnswersHaveTheSameBits(_ format: OperandFormat) async throws {
        let roomy = try engine(caches: false, kvFormat: format)
        let expected = try await together(roomy)
        await roomy.shutdown(drainDeadline: .seconds(5))
        let budgets: [OperandFormat: Int] = [.f32: 420 << 10, .bf16: 300 << 10, .int8: 280 << 10]
        var preemptions = 0
        for _ in 0..<20 where preemptions == 0 {
            let tight = try engine(
                caches: true, kvFormat: format, budget: try #require(budgets[format]),
                batchTokenCount: 64)
            #expect(try await together(tight) == expected)
            #expect(await tight.findFault() == nil)
            await tight.shutdown(drainDeadline: .seconds(5))
            preemptions += tight.statistics().preemptionCount
        }
        #expect(preemptions > 0)
    }

    private func together(_ engine: Engine) async throws -> [[GeneratedToken]] {
        let adapters = try adapters(engine)
        return try await withThrowingTaskGroup(of: (Int, [GeneratedToken]).self) { group in
            for (index, prompt) in (prompts() + prompts()).enumerated() {
                let request = request(prompt, count: 40, adapter: adapters[index % 3])
                group.addTask { (index, try await engine.tokens(request)) }
            }
            var answers: [Int: [GeneratedToken]] = [:]
            for try await (index, tokens) in group { answers[index] = tokens }
            return answers.sorted { $0.key < $1.key }.map(\.value)
        }
    }

    @Test func promptLogprobsAreComputedInFull() async throws {
        let engine = try engine(caches: true, kvFormat: .f32)
        let prompt = prompts()[0]
        var request = request(prompt)
        request.promptLogprobCount = 2
        var seen: [[TokenLogprobs?]] = []
        for _ in 0..<2 {
            let generation = try engine.submit(request, reservation: engine.reserve())
            for await event in generation {
                if case .prompt(let logprobs) = event { seen.append(logprobs) }
                if case .finished(let summary) = event { #expect(summary.cachedTokenCount == 0) }
            }
        }
        #expect(seen.count == 2)
        #expect(seen.first == seen.last)
        #expect(seen.first?.count == prompt.count)
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    private func cachedCount(_ request: GenerationRequest, _ engine: Engine) async throws -> Int {
        let generation = try engine.submit(request, reservation: engine.reserve())
        var count = -1
        for await event in generation {
            if case .finished(let summary) = event { count = summary.cachedTokenCount }
        }
        return count
    }

    /// Up to its activation an adapter's keys and values are the base's, in both directions.
    @Test func anActivatedAdapterSharesWhatComesBefore() async throws {
        let engine = try engine(caches: true, kvFormat: .f32)
        let known = try reference.adapterReferences(["alora"], engine.model)
        let adapter = try #require(known["alora"])
        let prompt = prompts()[0]
        let invoked = prompt + [5, 9, 30, 31]
        #expect(try await cachedCount(request(prompt), engine) == 0)
        #expect(try await cachedCount(request(invoked, adapter: adapter), engine) == 70)
        // What came after the activation is nobody's.
        #expect(try await cachedCount(request(invoked, adapter: adapter), engine) == 70)
        #expect(try await cachedCount(request(invoked), engine) == 70)
        // Without an activation it is the base.
        #expect(try await cachedCount(request(prompt, adapter: adapter), engine) == 69)
        let other = Array(prompt.reversed())
        #expect(
            try await cachedCount(request(other + [5, 9], adapter: adapter), engine) == 0)
        #expect(try await cachedCount(request(other), engine) == 69)
        #expect(await engine.findFault() == nil)
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    /// Virtual tokens are found again, and not counted among the prompt's.
    @Test func virtualTokensAreShared() async throws {
        let engine = try engine(caches: true, kvFormat: .f32)
        let known = try reference.adapterReferences(["prefix_tuning"], engine.model)
        let adapter = try #require(known["prefix_tuning"])
        #expect(adapter.virtualTokenCount == 7)
        let prompt = prompts()[0]
        #expect(try await cachedCount(request(prompt, adapter: adapter), engine) == 0)
        #expect(try await cachedCount(request(prompt, adapter: adapter), engine) == 69)
        let other = Array(prompt.reversed())
        #expect(try await cachedCount(request(other, adapter: adapter), engine) == 0)
        var long = request(Array(repeating: 3, count: engine.maximumContextLength - 7))
        long.adapter = adapter
        await #expect(throws: EngineError.self) { try await engine.tokens(long) }
        await engine.shutdown(drainDeadline: .seconds(5))
        // The second request found both, the third the virtual tokens only.
        #expect(engine.statistics().prefixCacheHitCount == 7 + 69 + 7)
    }

    @Test func saltsAndVersionsAndForgettingSeparate() async throws {
        let engine = try engine(caches: true, kvFormat: .f32)
        let prompt = prompts()[0]
        let known = try reference.adapterReferences(["lora_qv"], engine.model)
        let adapter = try #require(known["lora_qv"])
        #expect(try await cachedCount(request(prompt), engine) == 0)
        #expect(try await cachedCount(request(prompt), engine) == 69)
        var salted = request(prompt)
        salted.cacheSalt = "mine"
        #expect(try await cachedCount(salted, engine) == 0)
        #expect(try await cachedCount(salted, engine) == 69)
        #expect(try await cachedCount(request(prompt, adapter: adapter), engine) == 0)
        #expect(try await cachedCount(request(prompt, adapter: adapter), engine) == 69)
        // The same name with other content, and the old content once more after its delete.
        let other = AdapterReference(
            id: .init("v2"), name: adapter.name, byteCount: adapter.byteCount, load: adapter.load)
        #expect(try await cachedCount(request(prompt, adapter: other), engine) == 0)
        engine.forget(adapter.id)
        #expect(try await cachedCount(request(prompt, adapter: adapter), engine) == 0)
        #expect(await engine.findFault() == nil)
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    /// An adapter that only changes what comes after the last keys and values.
    private func lateAdapter(_ model: DecoderModel, keeps: Bool) throws -> AdapterReference {
        let configuration = model.configuration
        let last = configuration.layerCount - 1
        var builder = AdapterProgramBuilder(configuration: configuration)
        var random = SeededGenerator(seed: 3)
        for site in [LinearSite.query, .output, .down] + (keeps ? [] : [.value]) {
            let count = configuration.dimensions(of: site).outFeatures
            let numbers = (0..<count).map { _ in Float.random(in: -2...2, using: &random) }
            builder.addBias(at: .linear(layer: last, site), vector: .constant(numbers))
        }
        let program = try builder.build(method: "test", format: .f32, model: model)
        #expect(program.keepsKeysAndValues == keeps)
        return AdapterReference(
            id: .init("late \(keeps)"), name: "late", byteCount: program.byteCount
        ) { program }
    }

    @Test func anAdapterThatKeepsTheBasesKeysAndValuesSharesThem() async throws {
        let prompt = prompts()[0]
        for keeps in [true, false] {
            let plain = try engine(caches: false, kvFormat: .bf16)
            let adapter = try lateAdapter(plain.model, keeps: keeps)
            let expected = try await plain.tokens(request(prompt, adapter: adapter))
            let base = try await plain.tokens(request(prompt))
            #expect(expected != base)
            await plain.shutdown(drainDeadline: .seconds(5))
            let cached = try engine(caches: true, kvFormat: .bf16)
            #expect(try await cached.tokens(request(prompt)) == base)
            let found = try await cachedCount(request(prompt, adapter: adapter), cached)
            #expect(found == (keeps ? 69 : 0))
            #expect(try await cached.tokens(request(prompt, adapter: adapter)) == expected)
            #expect(try await cached.tokens(request(prompt)) == base)
            await cached.shutdown(drainDeadline: .seconds(5))
        }
    }

    /// Several samples of one prompt hold its blocks together.
    @Test func samplesOfOnePromptShareItsBlocks() async throws {
        let engine = try engine(caches: true, kvFormat: .f32, batchTokenCount: 64)
        let prompt = (0..<400).map { Int32(3 + $0) }
        var generations: [Generation] = []
        for index in 0..<8 {
            var request = request(prompt, count: 60)
            request.sampling.seed = UInt64(index)
            generations.append(try engine.submit(request, reservation: engine.reserve()))
        }
        var most = 0
        for generation in generations {
            for await event in generation {
                if case .token = event { most = max(most, engine.statistics().usedKVBlockCount) }
            }
        }
        #expect(most < 100, "eight times 25 blocks if nothing were shared")
        await engine.shutdown(drainDeadline: .seconds(5))
    }
}
