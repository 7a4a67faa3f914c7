import LorryEngine
import LorryModel
import LorryTensor
import Testing

@Suite struct SchedulerTests {
    @Test func fillsTheBudgetWithChunksInOrderOfArrival() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 10)
        let first = bench.enqueue(14)
        let second = bench.enqueue(9)
        var plan = bench.plan()
        #expect(plan.entries.map(\.range) == [0..<10])
        #expect(plan.entries.first?.sequence === first)
        #expect(plan.entries.first?.reachesEnd == false)
        _ = bench.finish(plan)
        plan = bench.plan()
        #expect(plan.entries.map(\.range) == [10..<14, 0..<6])
        #expect(plan.entries.last?.sequence === second)
        #expect(plan.tokenCount == 10)
    }

    @Test func ordersByPriorityThenArrival() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 100, runningCount: 2)
        let late = bench.enqueue(3, priority: 1)
        let middle = bench.enqueue(3)
        let urgent = bench.enqueue(3, priority: -1)
        _ = bench.plan()
        #expect(bench.scheduler.running.map(\.id) == [urgent, middle].map(\.id))
        #expect(bench.waiting.map(\.id) == [late.id])
    }

    @Test func decodesBeforeItPrefills() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 4)
        let a = bench.enqueue(2)
        let b = bench.enqueue(2)
        bench.step()
        let long = bench.enqueue(50)
        for _ in 0..<3 {
            let plan = bench.plan()
            let bySequence = Dictionary(
                uniqueKeysWithValues: plan.entries.map { ($0.sequence.id, $0.range.count) })
            #expect(bySequence == [a.id: 1, b.id: 1, long.id: 2])
            _ = bench.finish(plan)
        }
    }

    @Test func groupsEntriesByAdapterWithTheBaseFirst() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 100)
        for name in ["b", nil, "a", "b", nil, "a"] { bench.enqueue(2, adapter: name) }
        let names = bench.plan().entries.map { $0.sequence.adapterID?.digest }
        #expect(names == [nil, nil, "a", "a", "b", "b"])
    }

    @Test func passesOverSequencesWhoseAdapterLoads() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 100)
        bench.states["a"] = .absent
        let loading = bench.enqueue(2, adapter: "a")
        let base = bench.enqueue(2)
        var plan = bench.plan()
        #expect(plan.entries.map(\.sequence.id) == [base.id])
        #expect(bench.loads == ["a"])
        _ = bench.finish(plan)
        bench.finishLoad("a")
        plan = bench.plan()
        #expect(plan.entries.contains { $0.sequence === loading })
    }

    /// Else small requests behind it would take its room for ever.
    @Test func nobodyOvertakesASequenceThatLacksRoom() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 100)
        bench.states["big"] = .absent
        bench.loadAnswer = .lacksRoom
        bench.enqueue(2, adapter: "big")
        bench.enqueue(2)
        let plan = bench.plan()
        #expect(plan.entries.isEmpty)
        #expect(bench.scheduler.running.isEmpty)
    }

    /// Loads take their turns, and those who are ready do not wait for them.
    @Test func runsOthersWhileAllLoadsAreTaken() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 100)
        bench.states["a"] = .absent
        bench.loadAnswer = .busy
        let absent = bench.enqueue(2, adapter: "a")
        let base = bench.enqueue(2)
        #expect(bench.plan().entries.map(\.sequence.id) == [base.id])
        bench.loadAnswer = .started
        _ = bench.plan()
        #expect(bench.loads == ["a"])
        bench.finishLoad("a")
        #expect(bench.plan().entries.contains { $0.sequence === absent })
    }

    /// An adapter that was evicted meanwhile is loaded again, and nobody hangs.
    @Test func anEvictedAdapterIsLoadedAgain() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 100)
        let sequence = bench.enqueue(2, adapter: "a")
        bench.states["a"] = .absent
        #expect(bench.plan().entries.isEmpty)
        #expect(bench.loads == ["a"])
        bench.finishLoad("a")
        #expect(bench.plan().entries.map(\.sequence.id) == [sequence.id])
    }

    @Test func preemptsTheLastAdmittedAndTakesItBack() throws {
        let bench = try SchedulerBench(blockCount: 4, batchTokenCount: 64)
        let first = bench.enqueue(15, answer: 30)
        let second = bench.enqueue(14, answer: 30)
        bench.step()
        var done: [SequenceID] = []
        for _ in 0..<200 { done += bench.step().map(\.id) }
        #expect(done == [first.id, second.id])
        #expect(bench.pool.kvBlockCount == 0)

        let other = try SchedulerBench(blockCount: 5, batchTokenCount: 64)
        let a = other.enqueue(10, answer: 60)
        let b = other.enqueue(10, answer: 60)
        other.step()
        #expect(other.scheduler.running.count == 2)
        done = []
        for _ in 0..<200 {
            done += other.step().map(\.id)
            other.pool.checkInvariants()
        }
        #expect(other.scheduler.preemptionCount > 0)
        #expect(done == [a.id, b.id])
        #expect(other.pool.kvBlockCount == 0)
        #expect(b.tokens.count == 70)
    }

    @Test func pausedSequencesTakeNoPart() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 64)
        let paused = bench.enqueue(4)
        let other = bench.enqueue(4)
        bench.step()
        paused.isPaused = true
        #expect(bench.plan().entries.map(\.sequence.id) == [other.id])
        paused.isPaused = false
        #expect(bench.plan().entries.count == 2)
    }

    @Test func aPausedSequenceGivesWayToThoseWhoWait() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 64, runningCount: 1)
        let paused = bench.enqueue(4)
        bench.step()
        paused.isPaused = true
        #expect(bench.plan().entries.isEmpty)
        #expect(bench.scheduler.running.count == 1, "nobody waits, so it keeps its blocks")
        let next = bench.enqueue(4)
        let plan = bench.plan()
        #expect(plan.entries.map(\.sequence.id) == [next.id])
        #expect(plan.preempted.map(\.id) == [paused.id])
        #expect(paused.blocks.isEmpty)
        _ = bench.finish(plan)
        bench.scheduler.remove(next)
        #expect(bench.plan().entries.isEmpty, "it is still paused")
        bench.scheduler.resume(paused, .ready)
        #expect(bench.plan().entries.map(\.range) == [0..<5])
    }

    /// Random loads against the rules that must hold in every step.
    @Test(arguments: [11, 12, 13, 14] as [UInt64])
    func keepsItsRulesInLongRandomRuns(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let budget = Int.random(in: 1...40, using: &random)
        let bench = try SchedulerBench(blockCount: 30, batchTokenCount: budget, runningCount: 8)
        var live: [SequenceID: TokenSequence] = [:]
        var submitted = 0
        var ended = 0
        for step in 0..<200_000 {
            if submitted < 400, Int.random(in: 0..<3, using: &random) == 0 {
                let sequence = bench.enqueue(
                    .random(in: 1...150, using: &random),
                    answer: .random(in: 1...60, using: &random),
                    adapter: [nil, "a", "b"].randomElement(using: &random) ?? nil,
                    priority: .random(in: 0...2, using: &random),
                    tenant: ["x", "y"].randomElement(using: &random) ?? "x")
                live[sequence.id] = sequence
                submitted += 1
            }
            if Int.random(in: 0..<50, using: &random) == 0,
                let (id, sequence) = live.randomElement(using: &random)
            {
                bench.scheduler.remove(sequence)
                live[id] = nil
                ended += 1
            }
            if let sequence = bench.scheduler.running.randomElement(using: &random) {
                sequence.isPaused = Int.random(in: 0..<10, using: &random) == 0
            }
            if Int.random(in: 0..<4, using: &random) == 0 {
                for sequence in bench.waiting where sequence.isPaused {
                    bench.scheduler.resume(sequence, .ready)
                }
            }
            let plan = bench.plan()
            checkRules(plan, bench, budget, "seed \(seed), step \(step)")
            for sequence in bench.finish(plan) {
                live[sequence.id] = nil
                ended += 1
            }
            if ended == 400 { break }
        }
        #expect(ended == 400, "seed \(seed): some sequences starved")
        #expect(bench.pool.kvBlockCount == 0)
        #expect(bench.scheduler.isEmpty)
    }

    private func checkRules(
        _ plan: StepPlan, _ bench: SchedulerBench, _ budget: Int, _ label: String
    ) {
        bench.pool.checkInvariants()
        bench.scheduler.queue.checkInvariants()
        let running = bench.scheduler.running
        var isRight = plan.tokenCount <= budget && running.count <= 8
        for entry in plan.entries {
            let sequence = entry.sequence
            isRight =
                isRight && !sequence.isPaused && entry.range.lowerBound == sequence.computedCount
                && entry.range.upperBound <= sequence.tokens.count && !entry.range.isEmpty
                && sequence.blocks.count * KVLayout.blockSize >= entry.range.upperBound
                && running.contains { $0 === sequence }
        }
        let blocks = running.flatMap(\.blocks)
        isRight =
            isRight && Set(blocks).count == blocks.count
            && blocks.count == bench.pool.kvBlockCount
            && bench.waiting.allSatisfy { $0.blocks.isEmpty && $0.computedCount == 0 }
        let prefills = plan.entries.contains { $0.sequence.generatedCount == 0 }
        if prefills {
            // Whoever decodes and is left out is paused: prompts come after.
            let planned = Set(plan.entries.map(\.sequence.id))
            isRight =
                isRight
                && running.allSatisfy {
                    !$0.isDecoding || $0.isPaused || planned.contains($0.id)
                }
        }
        #expect(isRight, "\(label)")
    }

    @Test func tenThousandWaitingSequencesAreNoBurden() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 8)
        var random = SeededGenerator(seed: 5)
        let all = (0..<10_000).map { _ in
            bench.enqueue(1, answer: 1, priority: .random(in: 0...9, using: &random))
        }
        var order: [TokenSequence] = []
        while let next = bench.scheduler.queue.first(.ready), order.count < 5_000 {
            bench.scheduler.remove(next)
            order.append(next)
        }
        let keys = order.map { ($0.request.priority, $0.id) }
        #expect(zip(keys, keys.dropFirst()).allSatisfy { $0 < $1 })
        for sequence in all.shuffled(using: &random) { bench.scheduler.remove(sequence) }
        #expect(bench.scheduler.isEmpty)
    }
}
