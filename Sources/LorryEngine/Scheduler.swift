import LorryTensor

/// What the next step computes.
struct StepPlan {
    struct Entry {
        let sequence: TokenSequence
        /// Which of the sequence's tokens.
        let range: Range<Int>
        /// Whether they are its last, so that the next token can be sampled.
        var reachesEnd: Bool { range.upperBound == sequence.tokens.count }
    }
    /// Entries with the same adapter side by side, those of the base first.
    var entries: [Entry] = []
    /// Sequences that lost their blocks to others, and wait again.
    var preempted: [TokenSequence] = []

    var tokenCount: Int { entries.reduce(0) { $0 + $1.range.count } }
}

/// Decides which sequences run, and gives them KV blocks: plan → (run) → commit.
///
/// Knows neither model nor clock. Requests run in the order of priority, then arrival. Each step
/// computes one token of every decoding sequence, and fills the rest of the token budget with chunks
/// of prompts. A sequence whose adapter is not resident is passed over. Where blocks run out, the
/// sequence admitted last loses its own and is computed again later.
final class Scheduler {
    struct Bounds {
        var batchTokenCount: Int
        var runningCount: Int
    }

    let bounds: Bounds
    let pool: MemoryPool
    /// In the order in which they are to run.
    private(set) var waiting: [TokenSequence] = []
    /// In the order of admission.
    private(set) var running: [TokenSequence] = []
    private(set) var preemptionCount = 0

    init(bounds: Bounds, pool: MemoryPool) {
        self.bounds = bounds
        self.pool = pool
    }

    var isEmpty: Bool { waiting.isEmpty && running.isEmpty }

    func enqueue(_ sequence: TokenSequence) {
        insert(sequence)
    }

    /// Takes a sequence out, whatever its state, and frees its blocks.
    func remove(_ sequence: TokenSequence) {
        waiting.removeAll { $0 === sequence }
        running.removeAll { $0 === sequence }
        pool.freeKVBlocks(sequence.releaseBlocks())
    }

    /// - Parameters:
    ///   - isReady: whether a waiting sequence's adapter is resident.
    ///   - makeRoom: evicts something idle so that blocks become free; false where nothing is idle.
    func plan(isReady: (TokenSequence) -> Bool, makeRoom: () -> Bool) -> StepPlan {
        var draft = Draft(budget: bounds.batchTokenCount)
        let candidates = running.filter { !$0.isPaused }
        for sequence in candidates where sequence.isDecoding {
            schedule(sequence, &draft, makeRoom)
        }
        for sequence in candidates where !sequence.isDecoding {
            schedule(sequence, &draft, makeRoom)
        }
        // After a preemption nothing is admitted: it would take the room just made.
        if draft.preempted.isEmpty { admit(&draft, isReady, makeRoom) }
        return draft.plan()
    }

    /// Records that a step computed what was planned.
    func commit(_ plan: StepPlan) {
        for entry in plan.entries { entry.sequence.didCompute(entry.range.count) }
    }

    // MARK: -

    private struct Draft {
        var budget: Int
        var entries: [SequenceID: StepPlan.Entry] = [:]
        var preempted: [TokenSequence] = []

        func plan() -> StepPlan {
            let sorted = entries.values.sorted { a, b in
                let (x, y) = (
                    a.sequence.adapterID?.digest ?? "", b.sequence.adapterID?.digest ?? ""
                )
                return (x, a.sequence.id) < (y, b.sequence.id)
            }
            return StepPlan(entries: sorted, preempted: preempted)
        }
    }

    private func insert(_ sequence: TokenSequence) {
        let key = (sequence.request.priority, sequence.id)
        let index =
            waiting.firstIndex { key < ($0.request.priority, $0.id) } ?? waiting.endIndex
        waiting.insert(sequence, at: index)
    }

    private func schedule(
        _ sequence: TokenSequence, _ draft: inout Draft, _ makeRoom: () -> Bool
    ) {
        let count = min(sequence.pendingCount, draft.budget)
        guard count > 0, running.contains(where: { $0 === sequence }) else { return }
        while !allocate(sequence, upTo: sequence.computedCount + count) {
            if makeRoom() { continue }
            let victim = running[running.count - 1]
            preempt(victim, &draft)
            if victim === sequence { return }
        }
        let start = sequence.computedCount
        draft.entries[sequence.id] = .init(sequence: sequence, range: start..<start + count)
        draft.budget -= count
    }

    private func admit(
        _ draft: inout Draft, _ isReady: (TokenSequence) -> Bool, _ makeRoom: () -> Bool
    ) {
        var index = 0
        while index < waiting.count, draft.budget > 0, running.count < bounds.runningCount {
            let sequence = waiting[index]
            guard isReady(sequence) else {
                index += 1
                continue
            }
            // Room for all that it has now, and for each running sequence to grow by a block.
            let required = Self.blockCount(forTokens: sequence.tokens.count + 1)
            while pool.freeCount < required + running.count, makeRoom() {}
            guard pool.freeCount >= required + running.count else { return }
            waiting.remove(at: index)
            running.append(sequence)
            schedule(sequence, &draft, makeRoom)
        }
    }

    private func preempt(_ victim: TokenSequence, _ draft: inout Draft) {
        running.removeAll { $0 === victim }
        if let entry = draft.entries.removeValue(forKey: victim.id) {
            draft.budget += entry.range.count
        }
        pool.freeKVBlocks(victim.releaseBlocks())
        insert(victim)
        draft.preempted.append(victim)
        preemptionCount += 1
    }

    /// Gives the sequence blocks for its first `tokenCount` tokens. What was given stays with it
    /// where blocks run out.
    private func allocate(_ sequence: TokenSequence, upTo tokenCount: Int) -> Bool {
        while sequence.blocks.count < Self.blockCount(forTokens: tokenCount) {
            guard let block = pool.allocateKVBlock() else { return false }
            sequence.addBlock(block)
        }
        return true
    }

    static func blockCount(forTokens count: Int) -> Int {
        (count + KVLayout.blockSize - 1) / KVLayout.blockSize
    }
}
