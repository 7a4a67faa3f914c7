/// What a plan asks of the adapters' memory.
package protocol AdapterSupply: AnyObject {
    /// Says where a sequence's adapter is. One that is ready is not evicted by the plan under way.
    func use(_ sequence: TokenSequence) -> AdapterState

    /// Starts to load a sequence's adapter.
    ///
    /// - Parameters:
    ///   - spareBlockCount: blocks that must be free beside the adapter.
    ///   - displacing: whether adapters that others wait for may be evicted for it.
    func load(_ sequence: TokenSequence, sparing spareBlockCount: Int, displacing: Bool)
        -> LoadStart
}

/// What became of the wish to load an adapter.
package enum LoadStart: Sendable {
    case started
    /// It is resident already.
    case ready
    /// There is no room until something running ends.
    case lacksRoom
    /// As many loads as may be are under way.
    case busy
}

/// Decides which sequences run, and gives them KV blocks: plan → (run) → commit.
///
/// Knows neither model nor clock. The `FairQueue` says who comes next. Each step computes one token
/// of every decoding sequence, as far as `StepSharing` lets it, and chunks of prompts beside them:
/// as many tokens as the budget holds and as the step's target time allows. Where blocks run out,
/// the sequence admitted last of the tenant that had most service loses its own and is computed
/// again later.
package final class Scheduler {
    package struct Bounds {
        package var batchTokenCount: Int
        package var runningCount: Int
        /// Seconds that a step should take at most where sequences decode.
        package var stepSeconds = Double.infinity
        /// Prompt tokens that a step may always compute, if there are any.
        package var minimumChunkTokenCount = 16
        /// Whether one tenant must leave places among the running sequences to others.
        package var sharesPlaces = false

        package init(batchTokenCount: Int, runningCount: Int) {
            self.batchTokenCount = batchTokenCount
            self.runningCount = runningCount
        }
    }

    package let bounds: Bounds
    package let pool: MemoryPool
    package let queue: FairQueue
    /// In the order of admission.
    package private(set) var running: [TokenSequence] = []
    package private(set) var preemptionCount = 0
    /// What steps take; nil: not known yet.
    package var costs: StepCosts?
    /// Grows with every change of who waits or runs.
    package private(set) var changeCount = 1
    /// Called when a sequence begins to run, again where it was preempted, and when it no longer does.
    package var didStart: (TokenSequence) -> Void = { _ in }
    package var didStop: (TokenSequence) -> Void = { _ in }
    /// With whom a sequence shares keys and values, asked when its adapter is resident.
    package var prefixScope: (TokenSequence) -> PrefixScope? = { _ in nil }
    /// Tokens of an answer, on average lately.
    var answerTokenCount = 0.0
    // Of the plan being made.
    /// Tokens that it may still take.
    private var budget = 0
    private var tenants: [TenantAccount] = []
    private var candidates: [TokenSequence] = []

    package init(bounds: Bounds, pool: MemoryPool, policy: FairQueue.Policy = .fair) {
        self.bounds = bounds
        self.pool = pool
        queue = FairQueue(policy: policy)
    }

    package var isEmpty: Bool { queue.count == 0 && running.isEmpty }

    /// - Parameter state: of its adapter.
    /// - Complexity: O(log n).
    package func enqueue(_ sequence: TokenSequence, _ state: AdapterState = .ready) {
        changeCount += 1
        queue.enqueue(sequence, state)
    }

    /// Takes a sequence out, whatever its state, and frees its blocks.
    package func remove(_ sequence: TokenSequence) {
        changeCount += 1
        if sequence.standing == .running { stop(sequence) }
        queue.remove(sequence)
    }

    /// Lets a sequence take part again whose reader lagged behind.
    ///
    /// - Parameter state: of its adapter.
    package func resume(_ sequence: TokenSequence, _ state: AdapterState) {
        sequence.isPaused = false
        queue.resume(sequence, state)
    }

    /// Blocks that the running sequences will ask for next: those of the tokens that they have, and
    /// one more each.
    package var growthBlockCount: Int {
        running.reduce(0) { sum, sequence in
            let missing =
                MemoryPool.blockCount(forTokens: sequence.tokens.count) - sequence.blocks.count
            return sum + max(missing, 0) + 1
        }
    }

    /// - Parameter plan: overwritten.
    package func plan(into plan: inout StepPlan, supply: any AdapterSupply) {
        plan.clear()
        budget = bounds.batchTokenCount
        shareStep()
        // Preempted ones leave `running` meanwhile; `schedule` passes over them.
        candidates.append(contentsOf: running)
        for sequence in candidates where sequence.isDecoding && !sequence.isPaused {
            let tenant = queue.tenant(of: sequence)
            if tenant.share.takesDecode() { schedule(sequence, 1, &plan) }
        }
        limitPrompts(besides: plan)
        for sequence in candidates where !sequence.isDecoding && !sequence.isPaused {
            guard sequence.standing == .running else { continue }
            pool.catchUp(sequence)
            schedule(sequence, chunk(of: sequence), &plan)
        }
        candidates.removeAll(keepingCapacity: true)
        for tenant in tenants { tenant.share.advance() }
        // After a preemption nothing is admitted: it would take the room just made.
        if plan.preempted.isEmpty { admit(&plan, supply) }
        for tenant in tenants { tenant.share.begin() }
        tenants.removeAll(keepingCapacity: true)
    }

    /// Records that a step computed what was planned.
    package func commit(_ plan: StepPlan) {
        for entry in plan.entries {
            entry.sequence.didCompute(entry.range.count)
            pool.publish(entry.sequence)
        }
    }

    // MARK: - What a step holds

    /// Counts the tenants' work in the step, and limits it.
    private func shareStep() {
        for sequence in running where !sequence.isPaused {
            let tenant = queue.tenant(of: sequence)
            if tenant.share.decodeCount == 0, tenant.share.promptTokenCount == 0 {
                tenants.append(tenant)
            }
            if sequence.isDecoding {
                tenant.share.decodeCount += 1
            } else {
                tenant.share.promptTokenCount = min(
                    tenant.share.promptTokenCount + sequence.pendingCount,
                    bounds.batchTokenCount)
            }
        }
        if let costs {
            let free = bounds.runningCount - running.count
            StepSharing.limit(&tenants, costs: costs, freePlaceCount: free)
        }
    }

    /// Bounds the prompts' part of the step, so that decoding sequences do not wait for long.
    private func limitPrompts(besides plan: StepPlan) {
        guard let costs, !plan.entries.isEmpty, bounds.stepSeconds < .infinity else { return }
        let decoding = costs.seconds(promptTokenCount: 0, decodeCount: plan.entries.count)
        let room = max(bounds.stepSeconds - decoding, 0) / costs.promptToken
        let limit = max(bounds.minimumChunkTokenCount, Int(min(room, 1e9)))
        budget = min(budget, limit)
    }

    /// How many of its tokens a prompt that is under way may compute in this step.
    private func chunk(of sequence: TokenSequence) -> Int {
        let tenant = queue.tenant(of: sequence)
        var count = min(sequence.pendingCount, budget)
        if let costs, let seconds = tenant.share.promptSeconds {
            count = min(count, max(1, Int(seconds / costs.promptToken)))
            tenant.share.promptSeconds = max(seconds - Double(count) * costs.promptToken, 0)
        }
        // Half is left to the prompts of a tenant who had less service.
        if let next = queue.first(.ready), !bounds.isFull(running.count) {
            let other = queue.tenant(of: next)
            if other !== tenant, other.counter < tenant.counter {
                count = min(count, (budget + 1) / 2)
            }
        }
        return count
    }

    private func schedule(_ sequence: TokenSequence, _ wanted: Int, _ plan: inout StepPlan) {
        let count = min(wanted, budget)
        guard count > 0, sequence.standing == .running else { return }
        while !pool.grow(sequence, upTo: sequence.computedCount + count) {
            let victim = victim()
            preempt(victim, &plan)
            if victim === sequence { return }
        }
        let start = sequence.computedCount
        plan.insert(.init(sequence: sequence, range: start..<start + count))
        budget -= count
    }

    // MARK: - Admission

    /// Admits waiting sequences in their order, and starts the loads of adapters in the same order.
    /// The first for which there is no room ends the admission: those behind it would take, again
    /// and again, the room that it waits for.
    private func admit(_ plan: inout StepPlan, _ supply: any AdapterSupply) {
        defer { queue.releaseHeldBack() }
        var mayLoad = true
        var loadCount = 0
        while budget > 0, queue.first(.ready) != nil || queue.first(.absent) != nil {
            guard !bounds.isFull(running.count) else {
                // A reader that lags behind must not keep others out.
                guard preemptPaused(&plan) else { break }
                continue
            }
            if mayLoad, queue.isAbsentFirst, let sequence = queue.first(.absent) {
                // Who may not run now displaces nobody either, and no more are displaced than there
                // are places.
                guard mayAdmit(queue.tenant(of: sequence)),
                    loadCount < bounds.runningCount - running.count
                else {
                    mayLoad = false
                    continue
                }
                switch load(sequence, displacing: true, supply) {
                case .started:
                    loadCount += 1
                    continue
                case .ready: continue
                case .busy: mayLoad = false
                case .lacksRoom: guard preemptPaused(&plan) else { return }
                }
                continue
            }
            guard let sequence = queue.first(.ready) else { break }
            let tenant = queue.tenant(of: sequence)
            guard mayAdmit(tenant) else {
                queue.holdBack(tenant, .ready)
                continue
            }
            let state = supply.use(sequence)
            guard state == .ready else {
                if let id = sequence.adapterID { queue.setState(state, of: id) }
                continue
            }
            // Room for all that it has now, and for the running ones to grow.
            let scope = prefixScope(sequence)
            guard pool.admit(sequence, scope: scope, sparing: growthBlockCount) else {
                guard preemptPaused(&plan) else { return }
                continue
            }
            changeCount += 1
            queue.admit(sequence)
            running.append(sequence)
            didStart(sequence)
            schedule(sequence, chunk(of: sequence), &plan)
        }
        readAhead(supply)
    }

    /// Whether a tenant may have one more running sequence in this step.
    private func mayAdmit(_ tenant: TenantAccount) -> Bool {
        if let seconds = tenant.share.promptSeconds, let costs, seconds < costs.promptToken {
            return false
        }
        guard bounds.sharesPlaces else { return true }
        return TenantShare.allows(
            tenant.runningCount, free: bounds.runningCount - running.count,
            ratio: TenantShare.runningRatio)
    }

    /// Starts loads for those who will run later, as far as nobody else loses by it: for as many as
    /// there are places. A load before that takes time from the steps and room from the prefix cache
    /// for somebody whose turn is far off.
    private func readAhead(_ supply: any AdapterSupply) {
        while let sequence = queue.first(.absent) {
            guard queue.preparedCount(beside: sequence) < bounds.runningCount else {
                queue.holdBack(queue.tenant(of: sequence), .absent)
                continue
            }
            switch load(sequence, displacing: false, supply) {
            case .started, .ready: continue
            case .busy, .lacksRoom: return
            }
        }
    }

    private func load(
        _ sequence: TokenSequence, displacing: Bool, _ supply: any AdapterSupply
    ) -> LoadStart {
        guard let adapter = sequence.request.adapter else { return .ready }
        let start = supply.load(
            sequence, sparing: MemoryPool.requiredBlockCount(sequence) + growthBlockCount,
            displacing: displacing)
        switch start {
        case .started:
            queue.setState(.loading, of: adapter.id)
            queue.chargeLoad(sequence, loadCost(adapter))
        case .ready: queue.setState(.ready, of: adapter.id)
        case .lacksRoom, .busy: break
        }
        return start
    }

    /// Weighted tokens that a load counts: the prompt tokens that are computed while it lasts.
    private func loadCost(_ adapter: AdapterReference) -> Double {
        Double(adapter.byteCount) / pool.policy.costs.adapterBytesPerToken
            * FairQueue.promptTokenCost
    }

    // MARK: - Preemption

    /// Takes the blocks and the place of the paused sequence that was admitted last.
    ///
    /// - Returns: false where none is paused.
    private func preemptPaused(_ plan: inout StepPlan) -> Bool {
        guard let victim = running.last(where: { $0.isPaused }) else { return false }
        preempt(victim, &plan)
        return true
    }

    /// One whose reader lags behind loses least; else the last of the tenant that had most.
    private func victim() -> TokenSequence {
        if let paused = running.last(where: { $0.isPaused }) { return paused }
        var victim = running[running.count - 1]
        var most = queue.tenant(of: victim).counter
        for sequence in running.reversed() {
            let counter = queue.tenant(of: sequence).counter
            if counter > most { (victim, most) = (sequence, counter) }
        }
        return victim
    }

    private func preempt(_ victim: TokenSequence, _ plan: inout StepPlan) {
        stop(victim)
        budget += plan.remove(victim)
        changeCount += 1
        queue.requeue(victim, .ready)
        plan.preempted.append(victim)
        preemptionCount += 1
    }

    private func stop(_ sequence: TokenSequence) {
        running.removeAll { $0 === sequence }
        pool.release(sequence)
        didStop(sequence)
    }
}

extension Scheduler.Bounds {
    fileprivate func isFull(_ count: Int) -> Bool { count >= runningCount }
}
