import LorryTensor

/// What the next step computes. Kept from step to step, so that its arrays keep their memory.
package struct StepPlan {
    package struct Entry {
        package let sequence: TokenSequence
        /// Which of the sequence's tokens.
        package let range: Range<Int>
        /// Whether they are its last, so that the next token can be sampled.
        package var reachesEnd: Bool { range.upperBound == sequence.tokens.count }
    }
    /// Entries with the same adapter side by side, those of the base first.
    package var entries: [Entry] = []
    /// Sequences that lost their blocks to others, and wait again.
    package var preempted: [TokenSequence] = []

    package init() {}

    package var tokenCount: Int { entries.reduce(0) { $0 + $1.range.count } }

    /// Forgets everything; what the sequences hold may be released.
    package mutating func clear() {
        entries.removeAll(keepingCapacity: true)
        preempted.removeAll(keepingCapacity: true)
    }

    /// Puts an entry in its place. Takes no memory beside the array's own, as a sort would.
    fileprivate mutating func insert(_ entry: Entry) {
        var index = entries.count
        while index > 0, Self.precedes(entry.sequence, entries[index - 1].sequence) { index -= 1 }
        entries.insert(entry, at: index)
    }

    private static func precedes(_ a: TokenSequence, _ b: TokenSequence) -> Bool {
        let (x, y) = (a.adapterID?.digest ?? "", b.adapterID?.digest ?? "")
        return x == y ? a.id < b.id : x < y
    }

    /// - Returns: the tokens that were planned for the sequence.
    fileprivate mutating func remove(_ sequence: TokenSequence) -> Int {
        guard let index = entries.firstIndex(where: { $0.sequence === sequence }) else { return 0 }
        return entries.remove(at: index).range.count
    }
}

/// Decides which sequences run, and gives them KV blocks: plan → (run) → commit.
///
/// Knows neither model nor clock. Requests run in the order of priority, then arrival. Each step
/// computes one token of every decoding sequence, and fills the rest of the token budget with chunks
/// of prompts. A sequence whose adapter is not resident is passed over. Where blocks run out, the
/// sequence admitted last loses its own and is computed again later.
package final class Scheduler {
    package struct Bounds {
        package var batchTokenCount: Int
        package var runningCount: Int

        package init(batchTokenCount: Int, runningCount: Int) {
            self.batchTokenCount = batchTokenCount
            self.runningCount = runningCount
        }
    }

    package let bounds: Bounds
    package let pool: MemoryPool
    /// In the order in which they are to run.
    package private(set) var waiting: [TokenSequence] = []
    /// In the order of admission.
    package private(set) var running: [TokenSequence] = []
    package private(set) var preemptionCount = 0
    /// Tokens that the plan being made may still take.
    private var budget = 0
    /// Called when a sequence begins to run, again where it was preempted, and when it no longer does.
    package var didStart: (TokenSequence) -> Void = { _ in }
    package var didStop: (TokenSequence) -> Void = { _ in }
    /// With whom a sequence shares keys and values, asked when its adapter is resident.
    package var prefixScope: (TokenSequence) -> PrefixScope? = { _ in nil }
    /// Grows with every change of who waits or runs.
    package private(set) var changeCount = 1

    package init(bounds: Bounds, pool: MemoryPool) {
        self.bounds = bounds
        self.pool = pool
    }

    package var isEmpty: Bool { waiting.isEmpty && running.isEmpty }

    /// - Complexity: O(log n) comparisons.
    package func enqueue(_ sequence: TokenSequence) {
        insert(sequence)
    }

    /// Takes a sequence out, whatever its state, and frees its blocks.
    package func remove(_ sequence: TokenSequence) {
        changeCount += 1
        let index = waitingIndex(of: sequence)
        if index < waiting.count, waiting[index] === sequence { waiting.remove(at: index) }
        guard let place = running.firstIndex(where: { $0 === sequence }) else { return }
        running.remove(at: place)
        stop(sequence)
    }

    /// Whether any waiting sequence would run if there were room.
    package var hasUnpausedWaiting: Bool { waiting.contains { !$0.isPaused } }

    /// Blocks that the running sequences will ask for next: those of the tokens that they have, and
    /// one more each.
    package var growthBlockCount: Int {
        running.reduce(0) { sum, sequence in
            let missing =
                MemoryPool.blockCount(forTokens: sequence.tokens.count) - sequence.blocks.count
            return sum + max(missing, 0) + 1
        }
    }

    /// What holds a waiting sequence back, given how many blocks must be free beside its adapter.
    package typealias ReadinessCheck = (TokenSequence, _ sparing: Int) -> AdapterResidency.Readiness

    /// - Parameters:
    ///   - plan: overwritten.
    ///   - readiness: whether a waiting sequence's adapter is resident.
    package func plan(into plan: inout StepPlan, readiness: ReadinessCheck) {
        plan.clear()
        budget = bounds.batchTokenCount
        // Preempted ones leave `running` meanwhile; `schedule` passes over them.
        let candidates = running
        for sequence in candidates where sequence.isDecoding && !sequence.isPaused {
            schedule(sequence, &plan)
        }
        for sequence in candidates where !sequence.isDecoding && !sequence.isPaused {
            schedule(sequence, &plan)
        }
        // After a preemption nothing is admitted: it would take the room just made.
        if plan.preempted.isEmpty { admit(&plan, readiness) }
    }

    /// Records that a step computed what was planned.
    package func commit(_ plan: StepPlan) {
        for entry in plan.entries {
            entry.sequence.didCompute(entry.range.count)
            pool.publish(entry.sequence)
        }
    }

    // MARK: -

    private func insert(_ sequence: TokenSequence) {
        changeCount += 1
        waiting.insert(sequence, at: waitingIndex(of: sequence))
    }

    /// Where a sequence is in `waiting`, or belongs.
    private func waitingIndex(of sequence: TokenSequence) -> Int {
        let key = (sequence.request.priority, sequence.id)
        var (low, high) = (0, waiting.count)
        while low < high {
            let middle = (low + high) / 2
            if (waiting[middle].request.priority, waiting[middle].id) < key {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }

    private func schedule(_ sequence: TokenSequence, _ plan: inout StepPlan) {
        let count = min(sequence.pendingCount, budget)
        guard count > 0, running.contains(where: { $0 === sequence }) else { return }
        while !pool.grow(sequence, upTo: sequence.computedCount + count) {
            // One whose reader lags behind loses least.
            let victim = running.last { $0.isPaused } ?? running[running.count - 1]
            preempt(victim, &plan)
            if victim === sequence { return }
        }
        let start = sequence.computedCount
        plan.insert(.init(sequence: sequence, range: start..<start + count))
        budget -= count
    }

    /// Admits waiting sequences in their order. The first for which there is no room ends the
    /// admission: those behind it would take, again and again, the room that it waits for.
    private func admit(_ plan: inout StepPlan, _ readiness: ReadinessCheck) {
        var index = 0
        while index < waiting.count, budget > 0 {
            let sequence = waiting[index]
            guard !sequence.isPaused else {
                index += 1
                continue
            }
            guard running.count < bounds.runningCount else {
                // A reader that lags behind must not keep others out.
                guard preemptPaused(&plan) else { return }
                index = 0
                continue
            }
            // Room for all that it has now, and for the running ones to grow.
            let growth = growthBlockCount
            switch readiness(sequence, MemoryPool.requiredBlockCount(sequence) + growth) {
            case .loading:
                index += 1
                continue
            case .ready:
                if pool.admit(sequence, scope: prefixScope(sequence), sparing: growth) { break }
                fallthrough
            case .lacksRoom:
                guard preemptPaused(&plan) else { return }
                index = 0
                continue
            }
            changeCount += 1
            waiting.remove(at: index)
            running.append(sequence)
            didStart(sequence)
            schedule(sequence, &plan)
        }
    }

    /// Takes the blocks and the place of the paused sequence that was admitted last.
    ///
    /// - Returns: false where none is paused.
    private func preemptPaused(_ plan: inout StepPlan) -> Bool {
        guard let victim = running.last(where: { $0.isPaused }) else { return false }
        preempt(victim, &plan)
        return true
    }

    private func preempt(_ victim: TokenSequence, _ plan: inout StepPlan) {
        running.removeAll { $0 === victim }
        budget += plan.remove(victim)
        stop(victim)
        insert(victim)
        plan.preempted.append(victim)
        preemptionCount += 1
    }

    private func stop(_ sequence: TokenSequence) {
        pool.release(sequence)
        didStop(sequence)
    }
}
