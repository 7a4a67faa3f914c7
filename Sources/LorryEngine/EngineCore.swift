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
    /// The scheduler's `changeCount` as of the last statistics.
    var namedChangeCount = 0
    /// Sequences in the engine, waiting or running, by adapter.
    var useCounts: [AdapterVersionID: Int] = [:]
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
            blockByteCount: runner.kvBlockByteCount)
        scheduler = Scheduler(
            bounds: .init(
                batchTokenCount: configuration.maximumBatchTokenCount,
                runningCount: configuration.maximumRunningCount),
            pool: pool)
        residency = AdapterResidency(pool: pool, startLoad: startLoad)
        residency.onEvict = { observer.engineDidEvictAdapter(name: $0) }
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
        case .resume(let id): sequences[id]?.isPaused = false
        case .loaded(let reference, let result): finishLoad(reference, result)
        case .preload(let reference):
            _ = residency.prepare(
                reference, sparing: scheduler.growthBlockCount, isInUse: isInUse, now: clock.now)
        case .setPinned(let id, let isPinned): residency.setPinned(id, isPinned)
        case .forget(let id):
            residency.forget(id)
            evictForgotten()
        case .drain: isDraining = true
        case .stop:
            isStopped = true
            for sequence in sequences.values { fail(sequence, .shuttingDown) }
        }
    }

    private func submit(_ submission: Mailbox.Submission) {
        let request = submission.request
        let ends = request.stopTokenIDs.union(request.ignoresEndTokens ? [] : endTokenIDs)
        let sequence = TokenSequence(
            id: submission.id, request: request, channel: submission.channel,
            limits: .init(
                tokenCount: request.promptTokens.count
                    + min(
                        max(request.maximumTokenCount, 0),
                        configuration.maximumContextLength - request.promptTokens.count),
                endTokens: ends),
            submitted: submission.submitted)
        sequence.reservation = submission.place
        sequences[sequence.id] = sequence
        if let id = sequence.adapterID { useCounts[id, default: 0] += 1 }
        if isStopped { return fail(sequence, .shuttingDown) }
        if let error = memoryError(sequence) { return fail(sequence, error) }
        if let adapter = request.adapter {
            // Read ahead: by the time there is room to run, the adapter may be there.
            _ = residency.prepare(
                adapter,
                sparing: scheduler.growthBlockCount + scheduler.requiredBlockCount(sequence),
                isInUse: isInUse, now: clock.now)
        }
        scheduler.enqueue(sequence)
    }

    /// A sequence must be able to run to its end when it is alone with its adapter.
    private func memoryError(_ sequence: TokenSequence) -> EngineError? {
        let adapterBlocks = pool.blocks(forByteCount: sequence.request.adapter?.byteCount ?? 0)
        let blocks =
            Scheduler.blockCount(forTokens: sequence.limits.tokenCount + 1) + adapterBlocks + 1
        guard blocks > pool.blockCount else { return nil }
        return .exceedsMemory(
            requiredByteCount: blocks * pool.blockByteCount,
            budgetByteCount: configuration.memoryBudgetByteCount)
    }

    private func finishLoad(
        _ reference: AdapterReference, _ result: Result<AdapterProgram, any Error>
    ) {
        var reason: String?
        var program: AdapterProgram?
        switch result {
        case .failure(let error): reason = "\(error)"
        case .success(let loaded):
            if residency.chargeFully(reference.id, loaded, isInUse: isInUse) {
                program = loaded
            } else {
                reason = "there is no room for its \(loaded.byteCount) bytes"
            }
        }
        let duration = residency.finishLoad(reference.id, program, now: clock.now)
        if let reason {
            for sequence in sequences.values where sequence.adapterID == reference.id {
                fail(
                    sequence,
                    .adapterLoadFailed(name: reference.name, reason: reason))
            }
        } else {
            for sequence in sequences.values where sequence.adapterID == reference.id {
                if sequence.adapterReady == nil { sequence.adapterReady = clock.now }
            }
            evictForgotten()
        }
        observer.engineDidLoadAdapter(name: reference.name, duration: duration, error: reason)
    }

    func isInUse(_ id: AdapterVersionID) -> Bool {
        scheduler.running.contains { $0.adapterID == id }
    }

    // MARK: - Ends

    func finish(_ sequence: TokenSequence, _ reason: FinishReason) {
        let timings = end(sequence, .finished(reason))
        sequence.channel.send(
            .finished(
                GenerationSummary(
                    reason: reason, promptTokenCount: sequence.promptCount,
                    completionTokenCount: sequence.generatedCount, cachedTokenCount: 0,
                    timings: timings)))
    }

    private func fail(_ sequence: TokenSequence, _ error: EngineError) {
        _ = end(sequence, .failed(error))
        sequence.channel.send(.failed(error))
    }

    private func end(
        _ sequence: TokenSequence, _ outcome: FinishObservation.Outcome
    ) -> GenerationTimings {
        let now = clock.now
        scheduler.remove(sequence)
        sequences[sequence.id] = nil
        if let id = sequence.adapterID, let count = useCounts[id] {
            useCounts[id] = count > 1 ? count - 1 : nil
        }
        sequence.reservation = nil
        let timings = sequence.timings(at: now)
        observer.engineDidFinish(
            FinishObservation(
                id: sequence.request.id, adapter: sequence.request.adapter?.name,
                outcome: outcome, promptTokenCount: sequence.promptCount,
                completionTokenCount: sequence.generatedCount, timings: timings,
                total: now - sequence.submitted))
        return timings
    }

    /// A version that sequences still wait for stays: they may run with it to their end.
    func evictForgotten() { residency.evictForgotten { useCounts[$0] != nil } }
}
