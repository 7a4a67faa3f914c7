import LorryEngine
import LorryModel
import LorryTensor

/// Sequences, a pool and a scheduler, driven without a model or adapters.
final class SchedulerBench: AdapterSupply {
    let pool: MemoryPool
    let scheduler: Scheduler
    /// Where adapters are; those that are not named are ready.
    var states: [String: AdapterState] = [:]
    var loadAnswer = LoadStart.started
    private(set) var loads: [String] = []
    private var nextID: UInt64 = 1

    init(
        blockCount: Int, batchTokenCount: Int, runningCount: Int = 64, sharesPlaces: Bool = false,
        policy: FairQueue.Policy = .fair
    ) throws {
        pool = try MemoryPool(
            budgetByteCount: blockCount * 64, blockByteCount: 64, hasMemory: false)
        var bounds = Scheduler.Bounds(
            batchTokenCount: batchTokenCount, runningCount: runningCount)
        bounds.sharesPlaces = sharesPlaces
        scheduler = Scheduler(bounds: bounds, pool: pool, policy: policy)
    }

    func state(_ adapter: String?) -> AdapterState {
        adapter.map { states[$0] ?? .ready } ?? .ready
    }

    @discardableResult
    func enqueue(
        _ promptCount: Int, answer: Int = 8, adapter: String? = nil, priority: Int = 0,
        tenant: String = "default", weight: Double = 1
    ) -> TokenSequence {
        let reference = adapter.map { name in
            AdapterReference(id: .init(name), name: name, byteCount: 64) {
                throw CancellationError()
            }
        }
        var request = GenerationRequest(
            id: "test", promptTokens: [Int32](repeating: 0, count: promptCount),
            adapter: reference, maximumTokenCount: answer)
        request.priority = priority
        request.tenant = tenant
        request.weight = weight
        let sequence = TokenSequence(
            id: SequenceID(value: nextID), request: request,
            channel: EventChannel(capacity: 8) { _ in },
            limits: .init(tokenCount: promptCount + answer, endTokens: []),
            submitted: .now)
        nextID += 1
        scheduler.enqueue(sequence, state(adapter))
        return sequence
    }

    func plan() -> StepPlan {
        var plan = StepPlan()
        scheduler.plan(into: &plan, supply: self)
        return plan
    }

    /// Plans and commits a step, and samples a token where the end was reached.
    ///
    /// - Returns: the sequences that have all their tokens, which are removed.
    @discardableResult
    func step() -> [TokenSequence] { finish(plan()) }

    func finish(_ plan: StepPlan) -> [TokenSequence] {
        let reached = plan.entries.filter(\.reachesEnd).map(\.sequence)
        scheduler.commit(plan)
        var done: [TokenSequence] = []
        for sequence in reached {
            sequence.append(0)
            scheduler.queue.chargeOutput(sequence)
            if sequence.tokens.count >= sequence.limits.tokenCount {
                scheduler.remove(sequence)
                done.append(sequence)
            }
        }
        return done
    }

    func finishLoad(_ adapter: String) {
        states[adapter] = .ready
        scheduler.queue.setState(.ready, of: AdapterVersionID(adapter))
    }

    var waiting: [TokenSequence] {
        var all: [TokenSequence] = []
        scheduler.queue.forEachWaiting { all.append($0) }
        return all
    }

    // MARK: - AdapterSupply

    func use(_ sequence: TokenSequence) -> AdapterState { state(sequence.adapterID?.digest) }

    func load(
        _ sequence: TokenSequence, sparing spareBlockCount: Int, displacing: Bool
    ) -> LoadStart {
        let name = sequence.adapterID?.digest ?? ""
        guard state(name) != .ready else { return .ready }
        guard loadAnswer == .started else { return loadAnswer }
        states[name] = .loading
        loads.append(name)
        return .started
    }
}
