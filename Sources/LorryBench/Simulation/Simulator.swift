import LorryEngine
import LorryModel
import Synchronization

/// Replays a trace through the engine's core in a time of its own, without a model: what is decided
/// is real, what it takes comes from a cost model.
public final class Simulator {
    public struct Setting: Sendable {
        public var model: SimulatedModel
        public var machine: SimulatedMachine
        public var engine: EngineConfiguration
        /// Ranks of the adapters, in turn.
        public var ranks: [Int]
        /// By the trace's number of the tenant; 1 where there is none.
        public var weights: [Double] = []
        /// Tokens with which every prompt begins, as far as it is so long.
        public var sharedPrefixTokenCount = 0

        public init(
            model: SimulatedModel, machine: SimulatedMachine, engine: EngineConfiguration,
            ranks: [Int]
        ) {
            self.model = model
            self.machine = machine
            self.engine = engine
            self.ranks = ranks.isEmpty ? [8] : ranks
        }
    }

    private struct Load {
        let reference: AdapterReference
        let end: Double
    }

    /// Loads under way, the one that ends first at the front, and until when each thread is busy.
    private final class Loads {
        private let machine: SimulatedMachine
        private let clock: SimulatedClock
        private var threads: [Double]
        private(set) var queue: [Load] = []

        init(_ machine: SimulatedMachine, _ clock: SimulatedClock) {
            self.machine = machine
            self.clock = clock
            threads = [Double](repeating: 0, count: max(machine.loadThreadCount, 1))
        }

        func start(_ reference: AdapterReference) {
            let thread = threads.indices.min { threads[$0] < threads[$1] } ?? 0
            let duration = machine.loadDuration(byteCount: reference.byteCount) / .seconds(1)
            let end = max(threads[thread], clock.seconds) + duration
            threads[thread] = end
            let index = queue.lastIndex { $0.end <= end }.map { $0 + 1 } ?? 0
            queue.insert(Load(reference: reference, end: end), at: index)
        }

        func popFirst(upTo second: Double) -> AdapterReference? {
            guard let first = queue.first, first.end <= second else { return nil }
            return queue.removeFirst().reference
        }
    }

    private let setting: Setting
    private let clock = SimulatedClock()
    private let runner: SimulatedRunner
    private let recorder = SimulationRecorder()
    private let queue: WaitingQueue
    private let loads: Loads
    private let core: EngineCore
    private var references: [Int: AdapterReference] = [:]
    /// Of every adapter.
    private let program = Result<AdapterProgram, any Error> { try AdapterProgram.empty() }
    private var nextID: UInt64 = 1

    /// - Throws: `BenchError` where the budget holds no KV block.
    public init(_ setting: Setting) throws {
        self.setting = setting
        let clock = clock
        runner = SimulatedRunner(model: setting.model, machine: setting.machine, clock: clock)
        queue = WaitingQueue(
            bounds: .init(
                count: setting.engine.maximumWaitingCount,
                tokenCount: setting.engine.maximumWaitingTokenCount,
                isShared: setting.engine.hasSeveralTenants))
        let loads = Loads(setting.machine, clock)
        self.loads = loads
        do {
            core = try EngineCore(
                runner: runner, endTokenIDs: [], configuration: setting.engine, queue: queue,
                observer: recorder, clock: clock
            ) { loads.start($0) }
        } catch {
            throw BenchError("\(error)")
        }
    }

    /// Replays a trace to its last answer.
    ///
    /// - Parameter requests: in the order of their arrival.
    public func run(_ requests: [TraceRequest]) -> SimulationReport {
        let start = ContinuousClock.now
        var arrived = 0
        var hasWork = false
        while true {
            // A second that was converted to a duration and back may be a little less.
            let due = clock.seconds + 1e-9
            while let reference = loads.popFirst(upTo: due) {
                core.handle(.loaded(reference, program))
                hasWork = true
            }
            while arrived < requests.count, requests[arrived].arrivalSeconds <= due {
                submit(requests[arrived])
                arrived += 1
                hasWork = true
            }
            if hasWork {
                hasWork = core.step()
                continue
            }
            let arrival = arrived < requests.count ? requests[arrived].arrivalSeconds : nil
            let events = [arrival, loads.queue.first?.end].compactMap { $0 }
            guard let next = events.min() else { break }
            clock.advance(toSecond: next)
        }
        return SimulationReport(
            recorder.state.withLock { $0 }, core.statistics, seconds: clock.seconds,
            busy: runner.busySeconds, stepCount: runner.stepCount,
            wallSeconds: (ContinuousClock.now - start).seconds)
    }

    /// What is wrong with what the engine notes of its memory, if anything.
    public func findFault() -> String? { core.findFault() }

    private func submit(_ request: TraceRequest) {
        let tenant = "tenant \(request.tenant)"
        recorder.state.withLock {
            $0.tenants[tenant, default: SimulationRecorder.Tenant()].requestCount += 1
        }
        let tokenCount = request.promptTokenCount
        do {
            try queue.take(1, tokenCount: tokenCount, tenant: tenant)
        } catch {
            recorder.state.withLock { $0.tenants[tenant]?.refusedCount += 1 }
            return
        }
        var generation = GenerationRequest(
            id: "", promptTokens: promptTokens(tokenCount),
            adapter: request.adapter.map(reference(to:)),
            maximumTokenCount: request.outputTokenCount)
        generation.ignoresEndTokens = true
        generation.sampling.temperature = 0
        generation.sampling.seed = 0
        generation.tenant = tenant
        if setting.weights.indices.contains(request.tenant) {
            generation.weight = setting.weights[request.tenant]
        }
        core.handle(
            .submit(
                .init(
                    id: SequenceID(value: nextID), request: generation,
                    channel: EventChannel(capacity: .max) { _ in },
                    place: QueuePlace(queue: queue, tokenCount: tokenCount, tenant: tenant),
                    submitted: clock.start + .seconds(request.arrivalSeconds))))
        nextID += 1
    }

    /// The shared ones and then others than any prompt before.
    private func promptTokens(_ count: Int) -> [Int32] {
        var tokens = [Int32](repeating: 0, count: count)
        if setting.sharedPrefixTokenCount < count {
            tokens[setting.sharedPrefixTokenCount] = Int32(truncatingIfNeeded: nextID)
        }
        return tokens
    }

    private func reference(to adapter: Int) -> AdapterReference {
        if let known = references[adapter] { return known }
        let rank = setting.ranks[adapter % setting.ranks.count]
        let reference = AdapterReference(
            id: AdapterVersionID("\(adapter)"), name: "\(adapter)",
            byteCount: setting.model.adapterByteCount(rank: rank)
        ) { try AdapterProgram.empty() }
        references[adapter] = reference
        return reference
    }
}
