import LorryModel

// One step: plan → run → commit.
extension EngineCore {
    /// - Returns: false where nothing can be done until there is another message.
    package func step() -> Bool {
        let start = clock.now
        endOverdue(start)
        scheduler.costs = stepCosts.costs
        for sequence in scheduler.running {
            sequence.isPaused = sequence.channel.pauseIfFull()
        }
        defer { clearStep() }
        makePlan(start)
        // After a preemption there is room for others, which the next plan may admit.
        guard !plan.entries.isEmpty else { return !plan.preempted.isEmpty }
        let planned = clock.now
        makeBatch(now: planned)
        runner.run(&results, arena: pool.arena)
        let ran = clock.now
        commit()
        let decodeTokenCount = plan.entries.reduce(0) {
            $0 + ($1.sequence.isDecodeStep($1.range) ? 1 : 0)
        }
        if decodeTokenCount < plan.tokenCount {
            pool.noteComputation(tokenCount: plan.tokenCount, ran - planned)
        }
        let promptTokenCount = plan.tokenCount - decodeTokenCount
        stepCosts.note(
            promptTokenCount: promptTokenCount, decodeCount: decodeTokenCount,
            seconds: (clock.now - start) / .seconds(1))
        observer.engineDidStep(
            StepObservation(
                promptTokenCount: promptTokenCount,
                decodeTokenCount: decodeTokenCount, adapterCount: adapterCount,
                plan: planned - start, run: ran - planned, commit: clock.now - ran))
        return true
    }

    private func clearStep() {
        plan.clear()
        runner.clear()
        results.removeAll(keepingCapacity: true)
    }

    private func makePlan(_ now: ContinuousClock.Instant) {
        makePlan(now, .awaited)
        guard plan.entries.isEmpty, scheduler.running.isEmpty, !scheduler.queue.isEmpty,
            !residency.hasLoads
        else { return }
        // Nothing runs and nothing will: pinned adapters are in the way.
        makePlan(now, .pinned)
        pool.reach = .awaited
    }

    private func makePlan(_ now: ContinuousClock.Instant, _ reach: EvictionReach) {
        pool.reach = reach
        residency.beginPlan()
        scheduler.plan(into: &plan, supply: self)
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
            runner.add(entry, program: program(sequence), logits: offsets)
            for offset in offsets {
                results.append(
                    RowResult(sequence: sequence, position: entry.range.lowerBound + offset))
            }
        }
    }

    /// Distinct adapters of the step, whose entries lie side by side.
    private var adapterCount: Int {
        var count = 0
        var last: AdapterVersionID?
        for entry in plan.entries {
            guard let id = entry.sequence.adapterID, id != last else { continue }
            last = id
            count += 1
        }
        return count
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
            if sequence.promptLogprobs.count == sequence.request.promptTokens.count - 1,
                !sequence.hasSentPrompt,
                sequence.request.promptLogprobCount != nil
            {
                sequence.hasSentPrompt = true
                sequence.channel.send(.prompt([nil] + sequence.promptLogprobs))
            }
            if result.isBroken {
                fail(sequence, .numbersOverflow(adapter: sequence.request.adapter?.name))
            } else if let token = result.token {
                accept(token, result.logprobs, sequence)
            }
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
                adapter: sequence.request.adapter?.name, tenant: sequence.request.tenant,
                latency: now - (sequence.lastToken ?? sequence.submitted),
                isFirst: sequence.lastToken == nil))
        sequence.firstToken = sequence.firstToken ?? now
        sequence.lastToken = now
        sequence.append(token)
        scheduler.queue.chargeOutput(sequence)
        let mayEnd = sequence.generatedCount > sequence.request.minimumTokenCount
        if mayEnd, sequence.limits.endTokens.contains(token) {
            return finish(sequence, .stop(token: token))
        }
        sequence.channel.send(.token(GeneratedToken(id: token, logprobs: logprobs)))
        if sequence.tokens.count >= sequence.limits.tokenCount { finish(sequence, .length) }
    }
}
