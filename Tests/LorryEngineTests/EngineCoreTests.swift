import LorryEngine
import LorryModel
import Synchronization
import Testing

/// The engine's core without a model, in a time of its own.
@Suite struct EngineCoreTests {
    private final class VirtualClock: EngineClock {
        var now = ContinuousClock.now
    }

    /// Takes a second for each step and a tenth for each token; samples the same token always.
    private final class Runner: StepRunner {
        let usesMemory = false
        let kvBlockByteCount = 64
        let clock: VirtualClock
        private var tokenCount = 0
        private(set) var stepCount = 0

        init(_ clock: VirtualClock) { self.clock = clock }

        func add(_ entry: StepPlan.Entry, program: AdapterProgram?, logits: Range<Int>) {
            tokenCount += entry.range.count
        }

        func run(_ results: inout [RowResult], arena: UnsafeMutableRawPointer?) {
            stepCount += 1
            clock.now += .seconds(1) + .milliseconds(100 * tokenCount)
            for index in results.indices where results[index].isSampled { results[index].token = 1 }
        }

        func clear() { tokenCount = 0 }
    }

    private final class Outcomes: EngineObserver {
        let all = Mutex<[String: FinishObservation.Outcome]>([:])

        func engineDidFinish(_ request: FinishObservation) {
            all.withLock { $0[request.id] = request.outcome }
        }
        func engineDidStep(_ step: StepObservation) {}
        func engineDidEmitToken(_ token: TokenObservation) {}
        func engineDidLoadAdapter(name: String, duration: Duration, error: String?) {}
        func engineDidEvictAdapter(name: String) {}

        subscript(id: String) -> FinishObservation.Outcome? { all.withLock { $0[id] } }
    }

    private let clock = VirtualClock()
    private let outcomes = Outcomes()
    private let runner: Runner
    private let core: EngineCore
    private let queue = WaitingQueue(capacity: 100)

    init() throws {
        runner = Runner(clock)
        var configuration = EngineConfiguration(
            memoryBudgetByteCount: 64 * 200, maximumRunningCount: 2, maximumContextLength: 1_000)
        configuration.stepTarget = .seconds(1_000)
        core = try EngineCore(
            runner: runner, endTokenIDs: [], configuration: configuration, queue: queue,
            observer: outcomes, clock: clock
        ) { _ in }
    }

    private func submit(
        _ id: UInt64, prompt: Int = 10, answer: Int = 10, within seconds: Double? = nil
    ) throws {
        var request = GenerationRequest(
            id: "\(id)", promptTokens: [Int32](repeating: 1, count: prompt),
            maximumTokenCount: answer)
        request.ignoresEndTokens = true
        // Of its own, so that nothing is found in the prefix cache.
        request.cacheSalt = "\(id)"
        request.deadline = seconds.map { clock.now + .seconds($0) }
        try queue.take(1)
        core.handle(
            .submit(
                .init(
                    id: SequenceID(value: id), request: request,
                    channel: EventChannel(capacity: 1_000) { _ in },
                    place: QueuePlace(queue: queue), submitted: clock.now)))
    }

    private func drain() {
        var steps = 0
        while core.step(), steps < 10_000 { steps += 1 }
    }

    @Test func endsWhatRunsWhenItsDeadlinePasses() throws {
        try submit(1, answer: 100, within: 20)
        try submit(2, answer: 30)
        drain()
        #expect(outcomes["1"] == .failed(.deadlinePassed))
        #expect(outcomes["2"] == .finished(.length))
        #expect(core.statistics.usedKVBlockCount == 0)
        #expect(queue.takenCount == 0)
    }

    @Test func dropsWhatWaitsTooLongBeforeItComputesAnything() throws {
        try submit(1, answer: 40)
        try submit(2, answer: 40)
        try submit(3, prompt: 500, within: 10)
        drain()
        #expect(outcomes["3"] == .failed(.deadlinePassed))
        // Forty steps for the two; none was needed for the third's 500 tokens.
        #expect(runner.stepCount == 40)
    }

    @Test func refusesAtOnceWhatCannotBeInTime() throws {
        for id in 1...4 as ClosedRange<UInt64> { try submit(id, answer: 20) }
        drain()
        // 200 prompt tokens and 50 answers' tokens of its own: more than 70 seconds.
        try submit(5, prompt: 200, answer: 50, within: 60)
        guard case .failed(.deadlineUnreachable(let needed, let left)) = outcomes["5"] else {
            Issue.record("\(String(describing: outcomes["5"]))")
            return
        }
        #expect(needed > left && left <= .seconds(60))
        try submit(6, prompt: 200, answer: 50, within: 200)
        #expect(outcomes["6"] == nil)
        drain()
        #expect(outcomes["6"] == .finished(.length))
    }

    /// What waits ahead of a request counts.
    @Test func theQueueAheadCounts() throws {
        for id in 1...4 as ClosedRange<UInt64> { try submit(id, answer: 20) }
        drain()
        for id in 10...30 as ClosedRange<UInt64> { try submit(id, answer: 20) }
        try submit(31, prompt: 1, answer: 1, within: 15)
        guard case .failed(.deadlineUnreachable) = outcomes["31"] else {
            Issue.record("\(String(describing: outcomes["31"]))")
            return
        }
        drain()
        #expect(outcomes["30"] == .finished(.length))
    }

    @Test func aDeadlineThatHasPassedIsTold() throws {
        try submit(1, within: -1)
        #expect(outcomes["1"] == .failed(.deadlinePassed))
    }
}
