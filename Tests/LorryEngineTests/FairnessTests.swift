import LorryEngine
import Testing

/// Properties of the scheduler over many steps, with several tenants.
@Suite struct FairnessTests {
    /// Keeps tenants backlogged, and notes the weighted tokens that each was given.
    private struct Run {
        let bench: SchedulerBench
        var random: SeededGenerator
        var tenants: [(name: String, weight: Double, prompt: ClosedRange<Int>)]
        var adapterCount = 1
        private(set) var service: [String: Double] = [:]
        private(set) var byAdapter: [String: Double] = [:]
        /// Most tokens of running sequences at a time.
        private(set) var mostRunningTokens = 0

        mutating func step() {
            for tenant in tenants {
                while bench.waiting.filter({ $0.request.tenant == tenant.name }).count < 4 {
                    bench.enqueue(
                        .random(in: tenant.prompt, using: &random),
                        answer: .random(in: 1...30, using: &random),
                        adapter: "a\(Int.random(in: 0..<adapterCount, using: &random))",
                        tenant: tenant.name, weight: tenant.weight)
                }
            }
            let before = Set(bench.scheduler.running.map(\.id))
            let plan = bench.plan()
            for sequence in bench.scheduler.running where !before.contains(sequence.id) {
                note(sequence, Double(sequence.promptCount))
            }
            for entry in plan.entries where entry.reachesEnd { note(entry.sequence, 2) }
            mostRunningTokens = max(
                mostRunningTokens, bench.scheduler.running.reduce(0) { $0 + $1.tokens.count })
            _ = bench.finish(plan)
        }

        private mutating func note(_ sequence: TokenSequence, _ tokens: Double) {
            service[sequence.request.tenant, default: 0] += tokens
            byAdapter[sequence.adapterID?.digest ?? "", default: 0] += tokens
        }
    }

    private static let costs = StepCosts(fixed: 5, promptToken: 0.6, decodeToken: 0.6)

    /// Theorem 4.4 of arXiv 2401.00588: in any interval in which both are backlogged, the service
    /// of two tenants differs by at most twice the largest prompt, or twice the tokens of the
    /// largest batch.
    @Test(arguments: [1, 2, 3] as [UInt64], [nil, FairnessTests.costs] as [StepCosts?])
    func backloggedTenantsGetServiceWithinTheBound(_ seed: UInt64, _ costs: StepCosts?) throws {
        let bench = try SchedulerBench(blockCount: 200, batchTokenCount: 40, runningCount: 12)
        bench.scheduler.costs = costs
        var run = Run(
            bench: bench, random: SeededGenerator(seed: seed),
            tenants: [("small", 1, 1...10), ("big", 1, 40...90), ("heavy", 3, 5...50)])
        let weights = ["small": 1.0, "big": 1.0, "heavy": 3.0]
        var least: [String: Double] = [:]
        var most: [String: Double] = [:]
        for _ in 0..<3_000 {
            run.step()
            for (pair, names) in ["sb": ("small", "big"), "sh": ("small", "heavy")] {
                let difference =
                    (run.service[names.0] ?? 0) / (weights[names.0] ?? 1)
                    - (run.service[names.1] ?? 0) / (weights[names.1] ?? 1)
                least[pair] = min(least[pair] ?? difference, difference)
                most[pair] = max(most[pair] ?? difference, difference)
            }
        }
        let bound = 2 * max(90, 2 * Double(run.mostRunningTokens))
        for (pair, high) in most {
            #expect(high - (least[pair] ?? 0) <= bound, "\(pair), seed \(seed)")
        }
        let share = (run.service["heavy"] ?? 0) / (run.service["small"] ?? 1)
        #expect(abs(share - 3) < 0.2, "weights: \(share)")
    }

    @Test func adaptersOfATenantGetEqualService() throws {
        let bench = try SchedulerBench(blockCount: 200, batchTokenCount: 40, runningCount: 6)
        // Ten times as many sequences ask for one adapter as for the other.
        var service: [String: Double] = [:]
        for index in 0..<400 { bench.enqueue(10, adapter: index % 11 == 0 ? "rare" : "common") }
        while bench.waiting.contains(where: { $0.adapterID?.digest == "rare" }) {
            let plan = bench.plan()
            for entry in plan.entries {
                service[entry.sequence.adapterID?.digest ?? "", default: 0] += Double(
                    entry.range.count)
            }
            _ = bench.finish(plan)
        }
        let ratio = (service["rare"] ?? 0) / (service["common"] ?? 1)
        #expect(abs(ratio - 1) < 0.15, "\(ratio)")
    }

    /// Nothing is left idle that somebody who waits could use.
    @Test func isWorkConserving() throws {
        let bench = try SchedulerBench(
            blockCount: 10_000, batchTokenCount: 50, runningCount: 1_000)
        var random = SeededGenerator(seed: 6)
        for _ in 0..<300 {
            for _ in 0..<Int.random(in: 0...3, using: &random) {
                bench.enqueue(
                    .random(in: 1...60, using: &random),
                    answer: .random(in: 1...10, using: &random),
                    tenant: ["x", "y", "z"].randomElement(using: &random) ?? "x")
            }
            let plan = bench.plan()
            let isFull = plan.tokenCount == 50
            #expect(isFull || bench.scheduler.queue.isEmpty)
            _ = bench.finish(plan)
        }
    }

    /// A tenant that asks little is next, however many of another wait.
    @Test func whoeverAsksLittleDoesNotWait() throws {
        let bench = try SchedulerBench(
            blockCount: 1_000, batchTokenCount: 64, runningCount: 16, sharesPlaces: true)
        for _ in 0..<500 { bench.enqueue(20, answer: 40, tenant: "flood") }
        for _ in 0..<50 { bench.step() }
        #expect(bench.scheduler.running.count == 14, "two places are left")
        let little = bench.enqueue(20, tenant: "little")
        let plan = bench.plan()
        #expect(plan.entries.contains { $0.sequence === little })
    }

    /// Small requests that keep coming cannot keep a big one from running, nor loads.
    @Test func nobodyStarves() throws {
        let bench = try SchedulerBench(blockCount: 40, batchTokenCount: 32, runningCount: 8)
        var random = SeededGenerator(seed: 8)
        bench.states["cold"] = .absent
        let big = bench.enqueue(500, answer: 2, adapter: "cold", tenant: "big")
        var steps = 0
        while big.standing != .ended {
            while bench.waiting.count < 10 {
                bench.enqueue(
                    .random(in: 1...16, using: &random),
                    answer: .random(in: 1...10, using: &random),
                    tenant: "s\(Int.random(in: 0..<4, using: &random))")
            }
            bench.step()
            if bench.states["cold"] == .loading { bench.finishLoad("cold") }
            steps += 1
            guard steps < 2_000 else { break }
        }
        #expect(steps < 2_000)
    }

    /// One tenant's step with few sequences is not made as long as another's with many.
    @Test func aStepIsSharedBetweenTenants() throws {
        let bench = try SchedulerBench(blockCount: 1_000, batchTokenCount: 256)
        for _ in 0..<40 { bench.enqueue(1, answer: 100, tenant: "many") }
        bench.step()
        let few = bench.enqueue(1, answer: 100, tenant: "few")
        bench.step()
        #expect(bench.plan().entries.count == 41, "as long as no costs are known")
        bench.scheduler.costs = Self.costs
        var decoded: Set<SequenceID> = []
        var counts: Set<Int> = []
        for _ in 0..<20 {
            let plan = bench.plan()
            #expect(plan.entries.contains { $0.sequence === few })
            decoded.formUnion(plan.entries.map(\.sequence.id))
            counts.insert(plan.entries.count)
            _ = bench.finish(plan)
        }
        // 0.75 · 2 · (5 + 0.6) - 5 seconds hold the one sequence and four of the others.
        #expect(counts == [5], "\(counts)")
        #expect(decoded.count == 41, "they take turns")
    }

    @Test func aPromptBesideDecodesIsCutToTheTarget() throws {
        let pool = try MemoryPool(
            budgetByteCount: 64_000, blockByteCount: 64, hasMemory: false)
        var bounds = Scheduler.Bounds(batchTokenCount: 256, runningCount: 64)
        bounds.stepSeconds = 30
        let scheduler = Scheduler(bounds: bounds, pool: pool)
        let bench = try SchedulerBench(blockCount: 1, batchTokenCount: 1)
        scheduler.costs = Self.costs
        func sequence(_ id: UInt64, _ count: Int) -> TokenSequence {
            TokenSequence(
                id: SequenceID(value: id),
                request: GenerationRequest(
                    id: "", promptTokens: [Int32](repeating: 0, count: count),
                    maximumTokenCount: 50),
                channel: EventChannel(capacity: 8) { _ in },
                limits: .init(tokenCount: count + 50, endTokens: []), submitted: .now)
        }
        let first = sequence(1, 4)
        scheduler.enqueue(first)
        var plan = StepPlan()
        scheduler.plan(into: &plan, supply: bench)
        scheduler.commit(plan)
        first.append(0)
        scheduler.enqueue(sequence(2, 500))
        scheduler.plan(into: &plan, supply: bench)
        // 30 s less 5 s and one decode are 40 prompt tokens.
        #expect(plan.entries.map(\.range.count) == [1, 40])
        scheduler.commit(plan)
        first.append(0)
        scheduler.remove(first)
        scheduler.plan(into: &plan, supply: bench)
        #expect(plan.tokenCount == 256, "nobody decodes")
    }
}
