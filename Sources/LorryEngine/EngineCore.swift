import Foundation
import LorryModel
import LorryTensor

/// The state behind the engine thread: takes messages, then plan → run → commit, step after step.
///
/// Owned by the engine thread and not Sendable. A step that only decodes allocates nothing beside
/// the growth of what a token is appended to: plan, batch and results keep their memory.
package final class EngineCore {
    private let model: DecoderModel
    private let configuration: EngineConfiguration
    private let workers: WorkerPool
    private let queue: WaitingQueue
    private let observer: any EngineObserver
    private let clock = ContinuousClock()

    private let pool: MemoryPool
    private let scheduler: Scheduler
    private let residency: AdapterResidency
    private let forward: ForwardPass
    private var sequences: [SequenceID: TokenSequence] = [:]
    // Of the step under way; empty between steps, so that nothing is held longer than it runs.
    private var plan = StepPlan()
    private var batch = ForwardBatch()
    private var results: [RowResult] = []
    /// The scheduler's `changeCount` as of the last statistics.
    private var namedChangeCount = 0
    /// Sequences in the engine, waiting or running, by adapter.
    private var useCounts: [AdapterVersionID: Int] = [:]
    /// Ends once the sequences that it has are done.
    private var isDraining = false
    /// Takes no sequence any more, whoever still holds a reservation.
    private var isStopped = false

    package init(
        model: DecoderModel, configuration: EngineConfiguration, workers: WorkerPool,
        queue: WaitingQueue, loader: AdapterLoader, observer: any EngineObserver
    ) throws(PoolError) {
        self.model = model
        self.configuration = configuration
        self.workers = workers
        self.queue = queue
        self.observer = observer
        let layout = Self.kvLayout(model, configuration)
        pool = try MemoryPool(
            budgetByteCount: configuration.memoryBudgetByteCount,
            blockByteCount: layout.blockByteCount)
        scheduler = Scheduler(
            bounds: .init(
                batchTokenCount: configuration.maximumBatchTokenCount,
                runningCount: configuration.maximumRunningCount),
            pool: pool)
        residency = AdapterResidency(pool: pool) { loader.load($0) }
        forward = ForwardPass(
            model: model, kvLayout: layout,
            maximumRowCount: configuration.maximumBatchTokenCount, pool: workers)
        residency.onEvict = { observer.engineDidEvictAdapter(name: $0) }
    }

    static func kvLayout(
        _ model: DecoderModel, _ configuration: EngineConfiguration
    ) -> KVLayout {
        KVLayout(
            layerCount: model.configuration.layerCount,
            kvHeadCount: model.configuration.kvHeadCount, headDim: model.configuration.headDim,
            format: configuration.kvFormat ?? model.format.operandFormat)
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
        let modelEnds = model.configuration.endTokenIDs
        let ends = request.stopTokenIDs.union(request.ignoresEndTokens ? [] : modelEnds)
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

    private func isInUse(_ id: AdapterVersionID) -> Bool {
        scheduler.running.contains { $0.adapterID == id }
    }

    // MARK: - A step

    /// - Returns: false where nothing can be done until there is another message.
    package func step() -> Bool {
        let start = clock.now
        for sequence in scheduler.running {
            sequence.isPaused = sequence.channel.pauseIfFull()
        }
        defer { clearStep() }
        makePlan(start)
        // After a preemption there is room for others, which the next plan may admit.
        guard !plan.entries.isEmpty else { return !plan.preempted.isEmpty }
        let planned = clock.now
        makeBatch(now: planned)
        forward.run(batch, arena: pool.arena)
        sample()
        let ran = clock.now
        commit()
        let decodeTokenCount = plan.entries.reduce(0) {
            $0 + ($1.sequence.isDecodeStep($1.range) ? 1 : 0)
        }
        observer.engineDidStep(
            StepObservation(
                promptTokenCount: plan.tokenCount - decodeTokenCount,
                decodeTokenCount: decodeTokenCount, adapterCount: batch.segments.count,
                plan: planned - start, run: ran - planned, commit: clock.now - ran))
        return true
    }

    private func clearStep() {
        plan.clear()
        batch.clear()
        results.removeAll(keepingCapacity: true)
    }

    private func makePlan(_ now: ContinuousClock.Instant) {
        makePlan(now, includingPinned: false)
        guard plan.entries.isEmpty, scheduler.running.isEmpty, scheduler.hasUnpausedWaiting,
            !residency.hasLoads
        else { return }
        // Nothing runs and nothing will: pinned adapters are in the way.
        makePlan(now, includingPinned: true)
    }

    private func makePlan(_ now: ContinuousClock.Instant, includingPinned: Bool) {
        residency.beginPlan()
        scheduler.plan(
            into: &plan,
            readiness: { [self] sequence, sparing in
                guard let adapter = sequence.request.adapter else { return .ready }
                return residency.prepare(
                    adapter, sparing: sparing, includingPinned: includingPinned, isInUse: isInUse,
                    now: now)
            },
            makeRoom: { [self] in
                residency.evictOne(isInUse: isInUse, includingPinned: includingPinned)
            })
    }

    private func makeBatch(now: ContinuousClock.Instant) {
        for entry in plan.entries {
            let sequence = entry.sequence
            if sequence.firstScheduled == nil {
                sequence.firstScheduled = now
                sequence.reservation = nil
                queue.noteStart(now)
            }
            let offsets = sequence.logitOffsets(entry.range)
            batch.append(
                tokens: sequence.tokens[entry.range], startPosition: entry.range.lowerBound,
                blockTable: sequence.blockTable, program: program(sequence), logits: offsets)
            for offset in offsets {
                results.append(
                    RowResult(sequence: sequence, position: entry.range.lowerBound + offset))
            }
        }
    }

    /// A sequence without its adapter would answer as the base: that must never happen silently.
    private func program(_ sequence: TokenSequence) -> AdapterProgram? {
        guard let id = sequence.adapterID else { return nil }
        guard let program = residency.program(id) else {
            preconditionFailure("a planned sequence's adapter is not resident")
        }
        return program
    }

    private func commit() {
        scheduler.commit(plan)
        for result in results {
            let sequence = result.sequence
            if let logprobs = result.promptLogprobs {
                sequence.promptLogprobs.append(logprobs)
            }
            if sequence.promptLogprobs.count == sequence.promptCount - 1, !sequence.hasSentPrompt,
                sequence.request.promptLogprobCount != nil
            {
                sequence.hasSentPrompt = true
                sequence.channel.send(.prompt([nil] + sequence.promptLogprobs))
            }
            if let token = result.token { accept(token, result.logprobs, sequence) }
        }
        for entry in plan.entries where entry.reachesEnd && entry.sequence.wantsNoTokens {
            finish(entry.sequence, .length)
        }
    }

    /// Appends a sampled token and ends the sequence where it is the last.
    private func accept(_ token: Int32, _ logprobs: TokenLogprobs?, _ sequence: TokenSequence) {
        let now = clock.now
        observer.engineDidEmitToken(
            TokenObservation(
                adapter: sequence.request.adapter?.name,
                latency: now - (sequence.lastToken ?? sequence.submitted),
                isFirst: sequence.lastToken == nil))
        sequence.firstToken = sequence.firstToken ?? now
        sequence.lastToken = now
        sequence.append(token)
        let mayEnd = sequence.generatedCount > sequence.request.minimumTokenCount
        if mayEnd, sequence.limits.endTokens.contains(token) {
            return finish(sequence, .stop(token: token))
        }
        sequence.channel.send(.token(GeneratedToken(id: token, logprobs: logprobs)))
        if sequence.tokens.count >= sequence.limits.tokenCount { finish(sequence, .length) }
    }

    // MARK: - Ends

    private func finish(_ sequence: TokenSequence, _ reason: FinishReason) {
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

    // MARK: - Statistics

    package func statistics(previous: EngineStatistics) -> EngineStatistics {
        var statistics = EngineStatistics()
        statistics.runningCount = scheduler.running.count
        statistics.waitingCount = scheduler.waiting.count
        statistics.kvBlockCount = pool.blockCount
        statistics.usedKVBlockCount = pool.kvBlockCount
        statistics.kvBlockByteCount = pool.blockByteCount
        // Thousands may wait: their names are gathered again only when somebody came or went.
        if namedChangeCount == scheduler.changeCount {
            statistics.runningAdapters = previous.runningAdapters
            statistics.waitingAdapters = previous.waitingAdapters
        } else {
            namedChangeCount = scheduler.changeCount
            statistics.runningAdapters = Self.names(scheduler.running)
            statistics.waitingAdapters = Self.names(scheduler.waiting)
        }
        let isUnchanged =
            previous.runningAdapters == statistics.runningAdapters
            && previous.waitingAdapters == statistics.waitingAdapters
        statistics.adaptersChanged = isUnchanged ? previous.adaptersChanged : Date()
        statistics.residentAdapters = residency.residents { id in
            scheduler.running.reduce(0) { $0 + ($1.adapterID == id ? 1 : 0) }
        }
        statistics.residentAdapterByteCount =
            statistics.residentAdapters.reduce(0) { $0 + $1.byteCount }
        statistics.memoryBudgetByteCount = configuration.memoryBudgetByteCount
        statistics.preemptionCount = scheduler.preemptionCount
        statistics.maximumRunningCount = configuration.maximumRunningCount
        return statistics
    }

    private static func names(_ sequences: [TokenSequence]) -> [String] {
        Set(sequences.compactMap { $0.request.adapter?.name }).sorted()
    }
}

// MARK: - Sampling

extension EngineCore {
    /// What one row of logits gives, in the order of the batch's logit rows.
    private struct RowResult {
        let sequence: TokenSequence
        /// Of the token whose logits these are.
        let position: Int
        var promptLogprobs: TokenLogprobs?
        var token: Int32?
        var logprobs: TokenLogprobs?
    }

    private func sample() {
        let width = model.configuration.vocabularySize
        var done = 0
        while done < results.count {
            let tile = batch.logitRows[done...].prefix(ForwardPass.logitTileRowCount)
            forward.withLogits(of: tile) { logits in
                results.withUnsafeMutableBufferPointer { results in
                    // Safe because each task has a row of logits and a result of its own, and only
                    // the row of a sequence's last token changes its sampler.
                    workers.run(taskCount: tile.count) { index in
                        Self.sampleRow(
                            &results[done + index], level: workers.level,
                            UnsafeMutableBufferPointer(start: logits + index * width, count: width))
                    }
                }
            }
            done += tile.count
        }
    }

    private static func sampleRow(
        _ result: inout RowResult, level: KernelLevel,
        _ logits: UnsafeMutableBufferPointer<Float>
    ) {
        let sequence = result.sequence
        let position = result.position
        let request = sequence.request
        if let count = request.promptLogprobCount, position + 1 < sequence.promptCount {
            // Several rows of one prompt are read at a time, so that none may use the sequence's own.
            var greatest = GreatestLogits()
            result.promptLogprobs = LogprobReader(UnsafeBufferPointer(logits), level: level)
                .logprobs(
                    of: sequence.tokens[position + 1], topCount: count, using: &greatest)
        }
        guard position + 1 == sequence.tokens.count, !sequence.wantsNoTokens else { return }
        let token = sequence.sampler.sample(logits, level: level)
        result.token = token
        // Those of the model: the sampler leaves the logits as they were.
        if let count = request.logprobCount {
            result.logprobs = LogprobReader(UnsafeBufferPointer(logits), level: level)
                .logprobs(of: token, topCount: count, using: &sequence.greatest)
        }
    }
}

extension TokenSequence {
    /// Only the prompt is to be evaluated.
    var wantsNoTokens: Bool { request.maximumTokenCount == 0 }

    func isDecodeStep(_ range: Range<Int>) -> Bool {
        range.count == 1 && range.lowerBound >= promptCount
    }

    /// Offsets into the range of the tokens whose logits are wanted.
    func logitOffsets(_ range: Range<Int>) -> Range<Int> {
        let end = range.count
        let last = range.upperBound == tokens.count ? end - 1 : end
        guard request.promptLogprobCount != nil, !hasSentPrompt else { return last..<end }
        // Recomputed tokens were reported before; the row of the prompt's last token only samples.
        let first = max(range.lowerBound, promptLogprobs.count) - range.lowerBound
        let promptEnd = min(range.upperBound, promptCount - 1) - range.lowerBound
        return first < promptEnd ? first..<max(promptEnd, last < end ? end : promptEnd) : last..<end
    }

    func timings(at end: ContinuousClock.Instant) -> GenerationTimings {
        var timings = GenerationTimings()
        let started = firstScheduled ?? end
        let ready = min(adapterReady ?? submitted, started)
        timings.load = ready > submitted ? ready - submitted : .zero
        timings.queue = started - submitted - timings.load
        if firstScheduled != nil {
            timings.prefill = (firstToken ?? end) - started
            timings.decode = firstToken.map { end - $0 } ?? .zero
        }
        return timings
    }
}
