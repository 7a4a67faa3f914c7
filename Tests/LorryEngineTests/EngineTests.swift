import Foundation
import LorryEngine
import LorryModel
import LorryTensor
import Testing

@Suite struct EngineTests {
    private let reference: ReferenceModel
    private let workers = WorkerPool(threadCount: 2)

    init() throws {
        reference = try ReferenceModel(ReferenceModel.bundledRoot.appending(path: "llama"))
    }

    private func request(
        _ tokens: [Int32]? = nil, count: Int, adapter: AdapterReference? = nil
    ) -> GenerationRequest {
        var request = GenerationRequest(
            id: "test", promptTokens: tokens ?? reference.prompts[0], adapter: adapter,
            maximumTokenCount: count)
        request.sampling.temperature = 0
        request.ignoresEndTokens = true
        return request
    }

    /// A running engine asks for its state again and again: the last step may be still under way.
    private func waitUntilIdle(_ engine: Engine) async throws -> EngineStatistics {
        while true {
            let statistics = engine.statistics()
            if statistics.runningCount == 0, statistics.waitingCount == 0 { return statistics }
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    private func outcome(_ generation: Generation) async -> (
        tokens: [Int32], prompt: [TokenLogprobs?]?, end: GenerationEvent?
    ) {
        var tokens: [Int32] = []
        var prompt: [TokenLogprobs?]?
        var ends: [GenerationEvent] = []
        for await event in generation {
            switch event {
            case .prompt(let logprobs): prompt = logprobs
            case .token(let token): tokens.append(token.id)
            case .finished, .failed: ends.append(event)
            }
        }
        #expect(ends.count == 1)
        return (tokens, prompt, ends.first)
    }

    private func reason(_ event: GenerationEvent?) -> FinishReason? {
        if case .finished(let summary) = event { summary.reason } else { nil }
    }

    #if os(Linux)
        @Test func itsThreadsCarryTheirNames() async throws {
            let engine = try reference.engine(workers: workers)
            _ = try await engine.tokens(request(count: 2))
            let tasks = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")
            let names = tasks.compactMap {
                try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)
                    .trimmingCharacters(in: .newlines)
            }
            #expect(Set(["lorry-engine", "lorry-load-0"]).isSubset(of: names))
            await engine.shutdown(drainDeadline: .seconds(5))
        }
    #endif

    @Test func cancelEndsARunningGeneration() async throws {
        let engine = try reference.engine(workers: workers)
        let generation = try engine.submit(request(count: 400), reservation: engine.reserve())
        var seen = 0
        var end: FinishReason?
        for await event in generation {
            if case .token = event { seen += 1 }
            if seen == 3 { generation.cancel() }
            if case .finished(let summary) = event { end = summary.reason }
        }
        #expect(end == .cancelled)
        #expect(seen < 400)
        let statistics = try await waitUntilIdle(engine)
        #expect(statistics.usedKVBlockCount == 0)
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    @Test func randomCancelsLeaveNothingBehind() async throws {
        let engine = try reference.engine(workers: workers, batchTokenCount: 32, runningCount: 16)
        let adapters = try reference.adapterReferences(["lora_qv", "lora_all"], engine.model)
        var random = SeededGenerator(seed: 77)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<64 {
                let limit = Int.random(in: 0..<40, using: &random)
                let way = Int.random(in: 0..<3, using: &random)
                let adapter = [nil, adapters["lora_qv"], adapters["lora_all"]][index % 3]
                let generation = try engine.submit(
                    request(
                        reference.prompts[index % reference.prompts.count], count: 100,
                        adapter: adapter),
                    reservation: engine.reserve())
                group.addTask {
                    let reader = Task {
                        var seen = 0
                        for await event in generation {
                            guard case .token = event else { continue }
                            seen += 1
                            guard seen >= limit else { continue }
                            if way == 0 { return }
                            if way == 1 { generation.cancel() }
                        }
                    }
                    if way == 2 { reader.cancel() }
                    await reader.value
                }
            }
            try await group.waitForAll()
        }
        let statistics = try await waitUntilIdle(engine)
        #expect(statistics.usedKVBlockCount == 0)
        #expect(statistics.residentAdapters.allSatisfy { $0.leaseCount == 0 })
        let place = try engine.reserve(count: engine.configuration.maximumWaitingCount)
        withExtendedLifetime(place) {}
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    @Test func theQueueIsBounded() async throws {
        var configuration = EngineConfiguration(
            memoryBudgetByteCount: 8 << 20, maximumWaitingCount: 3, maximumContextLength: 512)
        configuration.maximumRunningCount = 1
        let model = try DecoderModel(
            directory: reference.folder.appending(path: "base"), format: .f32, pool: workers)
        let engine = try Engine(
            model: model, configuration: configuration, workers: workers,
            observer: SilentObserver())
        var held: QueueReservation? = try engine.reserve(count: 3)
        let refusal = #expect(throws: EngineError.self) { try engine.reserve() }
        guard case .queueFull(let retryAfter)? = refusal else {
            Issue.record("the queue took a fourth sequence")
            return
        }
        #expect(retryAfter >= .seconds(1))
        #expect(retryAfter <= .seconds(60))
        withExtendedLifetime(held) {}
        held = nil
        let reservation = try engine.reserve()
        _ = try engine.submit(request(count: 1), reservation: reservation)
        #expect(throws: EngineError.self) {
            try engine.submit(request(count: 1), reservation: reservation)
        }
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    @Test func refusesWhatCannotRun() async throws {
        let engine = try reference.engine(workers: workers, budget: 200 << 10)
        let long = [Int32](repeating: 3, count: 512)
        #expect(throws: EngineError.promptTooLong(tokenCount: 512, limit: 512)) {
            try engine.submit(request(long, count: 1), reservation: engine.reserve())
        }
        for bad in [-1, 512] as [Int32] {
            #expect(throws: EngineError.invalidToken(bad, vocabularySize: 512)) {
                try engine.submit(request([1, bad], count: 1), reservation: engine.reserve())
            }
        }
        let generation = try engine.submit(
            request(Array(long.prefix(300)), count: 200), reservation: engine.reserve())
        guard case .failed(.exceedsMemory(let required, let budget)) = await outcome(generation).end
        else {
            Issue.record("a sequence beyond the budget was taken")
            return
        }
        #expect(required > budget)
        #expect(budget == 200 << 10)
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    @Test func anEnormousTokenCountMeansUpToTheContext() async throws {
        let engine = try reference.engine(workers: workers)
        let prompt = [Int32](repeating: 3, count: 505)
        let result = await outcome(
            try engine.submit(request(prompt, count: .max), reservation: engine.reserve()))
        #expect(result.tokens.count == 7)
        #expect(reason(result.end) == .length)
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    /// The prompt's log-probabilities are those that decoding the same tokens reports.
    @Test(arguments: [1, 7, 256])
    func promptLogprobsEqualThoseOfDecoding(_ batchTokenCount: Int) async throws {
        let engine = try reference.engine(workers: workers, batchTokenCount: batchTokenCount)
        var decode = request(count: 24)
        decode.logprobCount = 4
        let tokens = try await engine.tokens(decode)
        #expect(tokens.count == 24)
        var evaluate = request(decode.promptTokens + tokens.map(\.id), count: 0)
        evaluate.promptLogprobCount = 4
        let result = await outcome(
            try engine.submit(evaluate, reservation: engine.reserve()))
        let prompt = try #require(result.prompt)
        #expect(prompt.count == evaluate.promptTokens.count)
        #expect(prompt.first == .some(nil))
        #expect(Array(prompt.suffix(24)) == tokens.map(\.logprobs))
        #expect(result.tokens.isEmpty)
        #expect(reason(result.end) == .length)
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    @Test func stopTokensEndAndMinimumTokensHoldThemOff() async throws {
        let engine = try reference.engine(workers: workers)
        let free = try await engine.tokens(request(count: 16)).map(\.id)
        var stopped = request(count: 16)
        stopped.stopTokenIDs = [free[4]]
        let index = try #require(free.firstIndex(of: free[4]))
        let result = await outcome(try engine.submit(stopped, reservation: engine.reserve()))
        #expect(result.tokens == Array(free[..<index]))
        #expect(reason(result.end) == .stop(token: free[4]))

        stopped.stopTokenIDs = [free[0]]
        stopped.minimumTokenCount = 6
        let held = await outcome(try engine.submit(stopped, reservation: engine.reserve()))
        #expect(held.tokens.count >= 6)
        #expect(!held.tokens.contains(free[0]))
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    @Test func modelEndTokensEndUnlessIgnored() async throws {
        let engine = try reference.engine(workers: workers)
        let end = try #require(engine.model.configuration.endTokenIDs.first)
        var forced = request(count: 5)
        forced.sampling.logitBias = [end: 1000]
        #expect(try await engine.tokens(forced).map(\.id) == [Int32](repeating: end, count: 5))
        forced.ignoresEndTokens = false
        let result = await outcome(try engine.submit(forced, reservation: engine.reserve()))
        #expect(result.tokens.isEmpty)
        #expect(reason(result.end) == .stop(token: end))
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    private func mixed(_ engine: Engine) async throws -> [[GeneratedToken]] {
        let adapters = try reference.adapterReferences(["lora_qv", "lora_r64_q"], engine.model)
        return try await withThrowingTaskGroup(of: (Int, [GeneratedToken]).self) { group in
            for index in 0..<9 {
                let adapter = [nil, adapters["lora_qv"], adapters["lora_r64_q"]][index % 3]
                var request = request(
                    reference.prompts[index % reference.prompts.count], count: 40, adapter: adapter)
                request.logprobCount = 3
                if index >= 6 {
                    request.sampling.temperature = 0.9
                    request.sampling.seed = UInt64(index)
                }
                let generation = try engine.submit(request, reservation: engine.reserve())
                group.addTask {
                    var tokens: [GeneratedToken] = []
                    for await event in generation {
                        if case .token(let token) = event { tokens.append(token) }
                        if case .failed(let error) = event { throw error }
                    }
                    return (index, tokens)
                }
            }
            var answers = [[GeneratedToken]](repeating: [], count: 9)
            for try await (index, tokens) in group { answers[index] = tokens }
            return answers
        }
    }

    @Test(arguments: WeightFormat.allCases)
    func bitsDependNeitherOnChunksNorOnPreemption(_ format: WeightFormat) async throws {
        let roomy = try reference.engine(workers: workers, format: format)
        let expected = try await mixed(roomy)
        #expect(expected.allSatisfy { $0.count == 40 })
        await roomy.shutdown(drainDeadline: .seconds(5))
        for batchTokenCount in [1, 3, 7, 64] {
            let engine = try reference.engine(
                workers: workers, batchTokenCount: batchTokenCount, format: format)
            #expect(try await mixed(engine) == expected, "\(batchTokenCount) tokens per step")
            await engine.shutdown(drainDeadline: .seconds(5))
        }
        #expect(try await preemptions(format, expected) > 0)
    }

    /// Answers under a budget that is too small for all at once. Whether they get in each other's
    /// way depends on when their adapters are loaded: tried until they do.
    private func preemptions(
        _ format: WeightFormat, _ expected: [[GeneratedToken]]
    ) async throws -> Int {
        let budget = format == .f32 ? 380 << 10 : 190 << 10
        for _ in 0..<50 {
            let tight = try reference.engine(workers: workers, budget: budget, format: format)
            #expect(try await mixed(tight) == expected, "with preemption")
            let statistics = try await waitUntilIdle(tight)
            #expect(statistics.usedKVBlockCount == 0)
            await tight.shutdown(drainDeadline: .seconds(5))
            if statistics.preemptionCount > 0 { return statistics.preemptionCount }
        }
        return 0
    }

    @Test func aFailedLoadFailsOnlyItsOwnRequests() async throws {
        struct Broken: Error {}
        let engine = try reference.engine(workers: workers)
        let broken = AdapterReference(id: .init("broken"), name: "broken", byteCount: 100) {
            throw Broken()
        }
        let bad = try engine.submit(
            request(count: 4, adapter: broken), reservation: engine.reserve())
        let good = try engine.submit(request(count: 4), reservation: engine.reserve())
        let failed = await outcome(bad)
        let answered = await outcome(good)
        guard case .failed(.adapterLoadFailed(let name, _)) = failed.end else {
            Issue.record("the broken adapter answered")
            return
        }
        #expect(name == "broken")
        #expect(answered.tokens.count == 4)
        let statistics = try await waitUntilIdle(engine)
        #expect(statistics.residentAdapters.isEmpty)
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    /// Two pinned adapters fill the memory; a long sequence needs the room of both.
    @Test func pinnedAdaptersGiveWayBeforeTheEngineStalls() async throws {
        let engine = try reference.engine(workers: workers, budget: 400 << 10)
        let program = try reference.adapterReferences(["lora_qv"], engine.model)["lora_qv"]
        let real = try #require(program)
        for name in ["one", "two"] {
            let adapter = AdapterReference(
                id: .init(name), name: name, byteCount: 180 << 10, load: real.load)
            engine.setPinned(adapter.id, true)
            engine.preload(adapter)
        }
        while engine.statistics().residentAdapters.count < 2 {
            // A load is reported after the step that follows it.
            try await Task.sleep(for: .milliseconds(2))
        }
        let prompt = [Int32](repeating: 3, count: 300)
        let tokens = try await engine.tokens(request(prompt, count: 2))
        #expect(tokens.count == 2)
        while !engine.statistics().residentAdapters.isEmpty {
            // What a step did is reported after its last event.
            try await Task.sleep(for: .milliseconds(2))
        }
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    @Test func aReaderThatDoesNotReadHoldsUpOnlyItself() async throws {
        let model = try DecoderModel(
            directory: reference.folder.appending(path: "base"), format: .f32, pool: workers)
        var configuration = EngineConfiguration(
            memoryBudgetByteCount: 8 << 20, maximumRunningCount: 1, maximumContextLength: 512)
        configuration.eventBufferCount = 4
        let engine = try Engine(
            model: model, configuration: configuration, workers: workers,
            observer: SilentObserver())
        let slow = try engine.submit(request(count: 60), reservation: engine.reserve())
        let others = try await engine.tokens(request(count: 60))
        #expect(others.count == 60)
        let late = await outcome(slow)
        #expect(late.tokens == others.map(\.id))
        #expect(reason(late.end) == .length)
        await engine.shutdown(drainDeadline: .seconds(5))
    }

    @Test func shutdownDrainsWhatRuns() async throws {
        let engine = try reference.engine(workers: workers)
        let generation = try engine.submit(request(count: 30), reservation: engine.reserve())
        let reservation = try engine.reserve()
        await engine.shutdown(drainDeadline: .seconds(60))
        #expect(await outcome(generation).tokens.count == 30)
        #expect(throws: EngineError.shuttingDown) { try engine.reserve() }
        #expect(throws: EngineError.shuttingDown) {
            try engine.submit(request(count: 1), reservation: reservation)
        }
        await engine.shutdown(drainDeadline: .seconds(1))
    }

    @Test func shutdownEndsTheRestAtTheDeadline() async throws {
        let engine = try reference.engine(workers: workers)
        let stuck = AdapterReference(id: .init("stuck"), name: "stuck", byteCount: 100) {
            Thread.sleep(forTimeInterval: 3)
            throw CancellationError()
        }
        let generation = try engine.submit(
            request(count: 30, adapter: stuck), reservation: engine.reserve())
        await engine.shutdown(drainDeadline: .milliseconds(50))
        guard case .failed(.shuttingDown) = await outcome(generation).end else {
            Issue.record("the request outlived the deadline")
            return
        }
        #expect(engine.statistics().usedKVBlockCount == 0)
    }
}
