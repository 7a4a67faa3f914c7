import LorryModel
import LorryTensor

/// The state behind the engine thread: takes messages, then plan → run → commit, step after step.
///
/// Decides, and computes nothing: a `StepRunner` does, and all instants come from its clock. So the
/// same core serves a model and runs in a simulation. Owned by the engine thread and not Sendable.
/// A step that only decodes allocates nothing beside the growth of what a token is appended to:
/// plan, batch and results keep their memory.
package final class EngineCore {
    let configuration: EngineConfiguration
    /// The tokens at which the model ends an answer.
    private let endTokenIDs: Set<Int32>
    let runner: any StepRunner
    let queue: WaitingQueue
    let observer: any EngineObserver
    let clock: any EngineClock

    let pool: MemoryPool
    let scheduler: Scheduler
    let residency: AdapterResidency
    var sequences: [SequenceID: TokenSequence] = [:]
    // Of the step under way; empty between steps, so that nothing is held longer than it runs.
    var plan = StepPlan()
    var results: [RowResult] = []
    /// What steps take, as measured.
    var stepCosts = StepCostEstimate()
    var deadlines = DeadlineQueue()
    /// Ends once the sequences that it has are done.
    private var isDraining = false
    /// Takes no sequence any more, whoever still holds a reservation.
    private var isStopped = false

    /// - Parameters:
    ///   - endTokenIDs: the tokens at which the model ends an answer.
    ///   - startLoad: returns at once; a `loaded` message is to follow.
    package init(
        runner: any StepRunner, endTokenIDs: Set<Int32>, configuration: EngineConfiguration,
        queue: WaitingQueue, observer: any EngineObserver,
        clock: any EngineClock = ContinuousClock(),
        startLoad: @escaping (AdapterReference) -> Void
    ) throws(PoolError) {
        self.runner = runner
        self.endTokenIDs = endTokenIDs
        self.configuration = configuration
        self.queue = queue
        self.observer = observer
        self.clock = clock
        pool = try MemoryPool(
            budgetByteCount: configuration.memoryBudgetByteCount,
            blockByteCount: runner.kvBlockByteCount,
            cachesPrefixes: configuration.cachesPrefixes, eviction: configuration.eviction,
            hasMemory: runner.usesMemory)
        scheduler = Scheduler(
            bounds: Self.bounds(configuration), pool: pool, policy: configuration.policy)
        residency = AdapterResidency(pool: pool, startLoad: startLoad)
        residency.onEvict = { observer.engineDidEvictAdapter(name: $0) }
        scheduler.didStart = { [residency] sequence in
            guard let id = sequence.adapterID else { return }
            residency.acquireLease(id)
            sequence.adapterReady = sequence.adapterReady ?? residency.readySince(id)
        }
        scheduler.didStop = { [residency] in
            if let id = $0.adapterID { residency.releaseLease(id) }
        }
        scheduler.prefixScope = { [residency] in Self.prefixScope($0, residency) }
    }

    private static func bounds(_ configuration: EngineConfiguration) -> Scheduler.Bounds {
        var bounds = Scheduler.Bounds(
            batchTokenCount: configuration.maximumBatchTokenCount,
            runningCount: configuration.maximumRunningCount)
        bounds.stepSeconds = configuration.stepTarget / .seconds(1)
        bounds.sharesPlaces = configuration.hasSeveralTenants
        return bounds
    }

    /// Serves a model.
    package convenience init(
        model: DecoderModel, configuration: EngineConfiguration, workers: WorkerPool,
        queue: WaitingQueue, loader: AdapterLoader, observer: any EngineObserver
    ) throws(PoolError) {
        let runner = ModelStepRunner(
            model: model, kvFormat: configuration.kvFormat,
            maximumRowCount: configuration.maximumBatchTokenCount, workers: workers)
        try self.init(
            runner: runner, endTokenIDs: model.configuration.endTokenIDs,
            configuration: configuration, queue: queue, observer: observer
        ) { loader.load($0) }
    }

    /// Whether the thread may end: nothing waits for the loads that may be under way.
    var canStop: Bool { (isDraining || isStopped) && sequences.isEmpty }

    /// Whether adapters are being loaded, so that a message will come.
    package var hasLoads: Bool { residency.hasLoads }

    // MARK: - Messages

    package func handle(_ message: Mailbox.Message) {
        switch message {
        case .submit(let submission): submit(submission)
        case .abandon(let id):
            if let sequence = sequences[id] { finish(sequence, .cancelled) }
        case .satisfy(let id):
            if let sequence = sequences[id] { finish(sequence, .readerSatisfied) }
        case .resume(let id):
            if let sequence = sequences[id] { scheduler.resume(sequence, state(sequence)) }
        case .loaded(let reference, let result): finishLoad(reference, result)
        case .preload(let reference):
            _ = residency.prepare(
                reference, sparing: scheduler.growthBlockCount, isAhead: true, now: clock.now)
        case .setPinned(let id, let isPinned): residency.setPinned(id, isPinned)
        case .forget(let id):
            residency.forget(id)
        case .check(let answer): answer(findFault())
        case .drain: isDraining = true
        case .stop:
            isStopped = true
            for sequence in sequences.values { fail(sequence, .shuttingDown) }
        }
    }

    private func submit(_ submission: Mailbox.Submission) {
        let request = submission.request
        let ends = request.stopTokenIDs.union(request.ignoresEndTokens ? [] : endTokenIDs)
        let promptCount =
            request.promptTokens.count + (request.adapter?.virtualTokenCount ?? 0)
        let sequence = TokenSequence(
            id: submission.id, request: request, channel: submission.channel,
            limits: .init(
                tokenCount: promptCount
                    + min(
                        max(request.maximumTokenCount, 0),
                        configuration.maximumContextLength - promptCount),
                endTokens: ends),
            submitted: submission.submitted)
        sequence.reservation = submission.place
        sequences[sequence.id] = sequence
        if let adapter = request.adapter { residency.join(adapter) }
        if isStopped { return fail(sequence, .shuttingDown) }
        if let error = memoryError(sequence) { return fail(sequence, error) }
        if let error = deadlineError(sequence) { return fail(sequence, error) }
        if let deadline = request.deadline {
            if deadlines.count > 2 * sequences.count + 64 {
                deadlines.keep { sequences[$0] != nil }
            }
            deadlines.insert(sequence.id, deadline)
        }
        // Its adapter is loaded in its turn, by the plan that follows.
        scheduler.enqueue(sequence, state(sequence))
    }

    /// A sequence must be able to run to its end when it is alone with its adapter.
    private func memoryError(_ sequence: TokenSequence) -> EngineError? {
        let adapterBlocks = pool.blocks(forByteCount: sequence.request.adapter?.byteCount ?? 0)
        let blocks =
            MemoryPool.blockCount(forTokens: sequence.limits.tokenCount + 1) + adapterBlocks + 1
        guard blocks > pool.blockCount else { return nil }
        return .exceedsMemory(
            requiredByteCount: blocks * pool.blockByteCount,
            budgetByteCount: configuration.memoryBudgetByteCount)
    }

    // MARK: - Ends

    func finish(_ sequence: TokenSequence, _ reason: FinishReason) {
        let timings = end(sequence, .finished(reason))
        scheduler.noteAnswer(tokenCount: sequence.generatedCount)
        sequence.channel.send(
            .finished(
                GenerationSummary(
                    reason: reason, promptTokenCount: sequence.request.promptTokens.count,
                    completionTokenCount: sequence.generatedCount,
                    cachedTokenCount: max(
                        0, (sequence.cachedTokenCount ?? 0) - sequence.virtualCount),
                    timings: timings)))
    }

    func fail(_ sequence: TokenSequence, _ error: EngineError) {
        _ = end(sequence, .failed(error))
        sequence.channel.send(.failed(error))
    }

    private func end(
        _ sequence: TokenSequence, _ outcome: FinishObservation.Outcome
    ) -> GenerationTimings {
        let now = clock.now
        scheduler.remove(sequence)
        sequences[sequence.id] = nil
        if let id = sequence.adapterID { residency.leave(id) }
        sequence.reservation = nil
        let timings = sequence.timings(at: now)
        observer.engineDidFinish(
            FinishObservation(
                id: sequence.request.id, adapter: sequence.request.adapter?.name,
                tenant: sequence.request.tenant,
                outcome: outcome, promptTokenCount: sequence.request.promptTokens.count,
                completionTokenCount: sequence.generatedCount, timings: timings,
                total: now - sequence.submitted))
        return timings
    }

    // MARK: - Checks

    /// Looks for a contradiction in what is noted of memory.
    ///
    /// - Complexity: O(blocks + adapters).
    /// - Returns: what is wrong, if anything.
    package func findFault() -> String? {
        if let fault = pool.findFault() ?? residency.findFault() { return fault }
        var holderCounts: [BlockID: Int] = [:]
        for sequence in sequences.values {
            for block in sequence.blocks { holderCounts[block, default: 0] += 1 }
        }
        guard holderCounts.count == pool.kvBlockCount,
            holderCounts.allSatisfy({ pool.ledger.holderCount($0) == $1 })
        else {
            return "sequences have \(holderCounts.count) blocks, \(pool.kvBlockCount) are held"
        }
        let leaseCount = scheduler.running.reduce(0) { $0 + ($1.adapterID == nil ? 0 : 1) }
        guard residency.leaseCount == leaseCount else {
            return "\(leaseCount) sequences have a lease, \(residency.leaseCount) are noted"
        }
        return nil
    }

    /// Tells the observer whether memory is as it must be when no sequence is left.
    func reportMemory() {
        let held = pool.kvBlockCount
        observer.engineDidCheckMemory(
            fault: findFault() ?? (held > 0 ? "\(held) blocks are still held" : nil))
    }
}
