import Foundation
import LorryBench
import LorryEngine
import LorryTensor
import Testing

@Suite struct SimulatorTests {
    /// A machine of two cores, and a decoder of 135 million weights in eight bits.
    private static let model = SimulatedModel(
        .init(
            layerCount: 30, hiddenSize: 576, headCount: 9, kvHeadCount: 3, headDim: 64,
            intermediateSize: 1536, vocabularySize: 49152),
        weights: .int8)

    private static let machine = {
        var machine = SimulatedMachine(readBytesPerSecond: 50e9, operationsPerSecond: 450e9)
        machine[.int8] = 900e9
        return machine
    }()

    private func report(
        adapters: Int, rate: Double, seconds: Double = 20, alpha: Double = 1,
        tenants: [Double] = [1], budget: Int = 1 << 30, policy: FairQueue.Policy = .fair,
        sharedPrefix: Int = 0, seed: UInt64 = 1,
        change: (inout EngineConfiguration) -> Void = { _ in }
    ) throws -> SimulationReport {
        var engine = EngineConfiguration(
            memoryBudgetByteCount: budget, maximumWaitingCount: 100_000,
            maximumContextLength: 8192)
        engine.cachesPrefixes = false
        engine.policy = policy
        engine.hasSeveralTenants = tenants.count > 1 && policy == .fair
        change(&engine)
        var setting = Simulator.Setting(
            model: Self.model, machine: Self.machine, engine: engine, ranks: [8, 16])
        setting.sharedPrefixTokenCount = sharedPrefix
        let simulator = try Simulator(setting)
        let trace = try SLoRAWorkload(
            adapterCount: adapters, alpha: alpha, rate: rate, seconds: seconds,
            lengths: TokenLengths(), tenantLoads: tenants, seed: seed
        ).trace()
        let report = simulator.run(trace)
        #expect(simulator.findFault() == nil)
        return report
    }

    @Test func answersEveryRequest() throws {
        let report = try report(adapters: 50, rate: 5)
        #expect(report.all.requests == 100)
        #expect(report.all.finished == 100)
        #expect(report.all.failed == 0 && report.all.refused == 0)
        #expect(report.loads > 20 && report.loads <= 50)
        #expect(report.busyShare > 0 && report.busyShare <= 1)
    }

    @Test func givesTheSameForTheSameSeed() throws {
        let runs = try (0..<2).map { _ in try report(adapters: 200, rate: 30, budget: 256 << 20) }
        let texts = try runs.map { run in
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            let text = String(decoding: try encoder.encode(run), as: UTF8.self)
            return text.replacing(/"wall_seconds":[^,}]*/, with: "")
        }
        #expect(texts[0] == texts[1])
        let other = try report(adapters: 200, rate: 30, budget: 256 << 20, seed: 2)
        #expect(other.seconds != runs[0].seconds)
    }

    /// More adapters than the budget holds: they come and go, and nothing fails.
    @Test func thousandsOfAdaptersInASmallBudget() throws {
        let few = try report(adapters: 5, rate: 60)
        let many = try report(adapters: 2_000, rate: 60, alpha: 0.3, budget: 900 << 20)
        #expect(many.all.finished == many.all.requests)
        #expect(many.evictions > 0)
        #expect(many.all.requestsPerSecond > 0.7 * few.all.requestsPerSecond)
    }

    /// What the pool and the fair queue promise a tenant who asks little.
    @Test func aFloodHurtsOthersLessUnderFairness() throws {
        let alone = try report(adapters: 20, rate: 3)
        let tenants = [1.0, 20]
        let arrival = try report(adapters: 20, rate: 63, tenants: tenants, policy: .arrival)
        let fair = try report(adapters: 20, rate: 63, tenants: tenants)
        let base = alone.all.requestSeconds.p95
        #expect(fair.tenants[0].requestSeconds.p95 < 2 * base)
        #expect(arrival.tenants[0].requestSeconds.p95 > 3 * base)
        // Nobody else pays for it.
        #expect(fair.all.requestsPerSecond > 0.9 * arrival.all.requestsPerSecond)
    }

    /// What prompts begin with is found where the cache is on, and nothing else.
    @Test func sharedPrefixesAreFound() throws {
        let off = try report(adapters: 5, rate: 5, sharedPrefix: 64)
        let unshared = try report(adapters: 5, rate: 5) { $0.cachesPrefixes = true }
        let shared = try report(adapters: 5, rate: 5, sharedPrefix: 64) {
            $0.cachesPrefixes = true
        }
        #expect(off.foundTokenShare == 0 && unshared.foundTokenShare == 0)
        #expect(shared.foundTokenShare > 0.4)
        #expect(shared.busyShare < off.busyShare)
    }

    /// Prompts that do not repeat push adapters out of the pool where age alone counts.
    @Test func valueKeepsAdaptersThatAgeLetsGo() throws {
        func loads(_ order: EvictionOrder) throws -> Int {
            let report = try report(adapters: 60, rate: 8, seconds: 60, budget: 256 << 20) {
                $0.cachesPrefixes = true
                $0.eviction = order
            }
            #expect(report.all.finished == report.all.requests)
            return report.loads
        }
        #expect(try loads(.gdsf) < loads(.lru))
    }

    @Test func readsWhatTheEngineBenchWrote() throws {
        let json = """
            {"limits": {"level": "portable", "threads": 2, "read_bytes_per_second": 1e9,
              "int8_operations_per_second": 4e9, "bf16_operations_per_second": 3e9,
              "f32_operations_per_second": 2e9, "int8_instruction": "a", "bf16_instruction": "b",
              "f32_instruction": "c"},
              "prefill_share_of_limit": SHARE, "decode_share_of_limit": 0.25}
            """
        func read(_ share: String) throws -> SimulatedMachine {
            let text = json.replacing("SHARE", with: share)
            return try JSONDecoder().decode(SimulatedMachine.self, from: Data(text.utf8))
        }
        let machine = try read("0.5")
        #expect(machine.readBytesPerSecond == 1e9)
        #expect(Arithmetic.allCases.map { machine[$0] } == [2e9, 3e9, 4e9])
        #expect(machine.prefillShare == 0.5 && machine.decodeShare == 0.25)
        #expect(throws: BenchError.self) { try read("0") }
    }

    @Test func aStepStaysNearItsTarget() throws {
        let lengths = try TokenLengths(prompt: 200...600, output: 20...60)
        func interToken(_ target: Duration) throws -> Double {
            var engine = EngineConfiguration(
                memoryBudgetByteCount: 1 << 30, maximumContextLength: 8192)
            engine.stepTarget = target
            engine.cachesPrefixes = false
            let simulator = try Simulator(
                .init(model: Self.model, machine: Self.machine, engine: engine, ranks: [8]))
            let trace = try SLoRAWorkload(
                adapterCount: 10, rate: 3, seconds: 30, lengths: lengths, seed: 4
            ).trace()
            return simulator.run(trace).all.interTokenSeconds.p99
        }
        let short = try interToken(.milliseconds(30))
        let long = try interToken(.seconds(10))
        #expect(short < 0.045)
        #expect(long > 2 * short)
    }
}
