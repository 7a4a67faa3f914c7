import LorryBench
import Testing

struct SLoRAWorkloadTests {
    private func workload(
        adapters: Int = 100, alpha: Double = 1, cv: Double = 1, rate: Double = 50,
        seconds: Double = 200, loads: [Double] = [1], seed: UInt64 = 42
    ) throws -> SLoRAWorkload {
        try SLoRAWorkload(
            adapterCount: adapters, alpha: alpha, cv: cv, rate: rate, seconds: seconds,
            lengths: TokenLengths(prompt: 8...128, output: 4...9), tenantLoads: loads, seed: seed)
    }

    @Test func hasRateTimesSecondsRequestsInOrder() throws {
        let trace = try workload(rate: 3, seconds: 7.5).trace()
        #expect(trace.count == 22)
        #expect(zip(trace, trace.dropFirst()).allSatisfy { $0.arrivalSeconds <= $1.arrivalSeconds })
        #expect(trace.allSatisfy { (8...128).contains($0.promptTokenCount) })
        #expect(trace.allSatisfy { (4...9).contains($0.outputTokenCount) })
        #expect(Set(trace.map(\.outputTokenCount)) == Set(4...9))
    }

    @Test(arguments: [0.5, 1, 2]) func gapsHaveTheirMeanAndVariation(cv: Double) throws {
        let trace = try workload(cv: cv).trace()
        let arrivals = [0] + trace.map(\.arrivalSeconds)
        let gaps = zip(arrivals.dropFirst(), arrivals).map { $0 - $1 }
        let mean = gaps.reduce(0, +) / Double(gaps.count)
        let variance = gaps.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(gaps.count)
        #expect(abs(mean - 0.02) < 0.001)
        #expect(abs(variance.squareRoot() / mean / cv - 1) < 0.06)
    }

    @Test func noVariationMakesEqualGaps() throws {
        let trace = try workload(cv: 0, rate: 4, seconds: 1).trace()
        #expect(trace.map(\.arrivalSeconds) == [0.25, 0.5, 0.75, 1])
    }

    @Test func alphaDecidesHowPopularAdaptersAre() throws {
        let even = try workload().trace().compactMap(\.adapter)
        #expect(Set(even) == Set(0..<100))
        #expect(abs(Double(even.count { $0 < 10 }) / Double(even.count) - 0.1) < 0.015)
        // A tenth of the adapters takes 0.1^0.3 of the requests.
        let skewed = try workload(alpha: 0.3).trace().compactMap(\.adapter)
        #expect(abs(Double(skewed.count { $0 < 10 }) / Double(skewed.count) - 0.501) < 0.02)
        #expect(skewed.allSatisfy { (0..<100).contains($0) })
    }

    @Test func noAdaptersAskTheBase() throws {
        #expect(try workload(adapters: 0).trace().allSatisfy { $0.adapter == nil })
    }

    @Test func theSeedDecidesAll() throws {
        #expect(try workload().trace() == workload().trace())
        #expect(try workload().trace() != workload(seed: 43).trace())
    }

    @Test func oneSettingLeavesTheOthersDraws() throws {
        let one = try workload().trace()
        let other = try workload(adapters: 7, alpha: 0.3, cv: 2).trace()
        #expect(one.map(\.promptTokenCount) == other.map(\.promptTokenCount))
        #expect(one.map(\.outputTokenCount) == other.map(\.outputTokenCount))
    }

    /// Written down so that a change of the generators does not go unseen.
    @Test func isTheSameOnEveryMachine() throws {
        let trace = try workload(alpha: 0.3, cv: 2).trace()
        #expect(trace.prefix(3).map(\.adapter) == Self.adapters)
        #expect(trace.prefix(3).map(\.promptTokenCount) == Self.prompts)
        #expect(trace.prefix(3).map(\.outputTokenCount) == Self.outputs)
        #expect(trace.prefix(3).map(\.arrivalSeconds.bitPattern) == Self.arrivals)
    }

    private static let adapters = [0, 7, 0]
    private static let prompts = [41, 105, 63]
    private static let outputs = [6, 6, 5]
    private static let arrivals: [UInt64] = [
        4_519_295_258_016_940_777, 4_550_152_114_759_378_093, 4_575_101_041_259_552_133,
    ]

    @Test func tenantsShareTheRateByTheirLoads() throws {
        let trace = try workload(rate: 110, loads: [10, 1]).trace()
        #expect(trace.count { $0.tenant == 0 } == 20_000)
        #expect(trace.count { $0.tenant == 1 } == 2000)
        #expect(zip(trace, trace.dropFirst()).allSatisfy { $0.arrivalSeconds <= $1.arrivalSeconds })
    }

    @Test func aTenantAsksTheSameAlone() throws {
        let both = try workload(rate: 110, loads: [10, 1])
        #expect(both.trace().filter { $0.tenant == 1 } == both.trace(ofTenant: 1))
        #expect(both.trace(ofTenant: 2).isEmpty)
    }

    @Test func refusesNumbersOutOfRange() {
        #expect(throws: BenchError.self) { try workload(adapters: -1) }
        #expect(throws: BenchError.self) { try workload(alpha: 0) }
        #expect(throws: BenchError.self) { try workload(alpha: .nan) }
        #expect(throws: BenchError.self) { try workload(cv: -1) }
        #expect(throws: BenchError.self) { try workload(rate: 0) }
        #expect(throws: BenchError.self) { try workload(rate: .infinity) }
        #expect(throws: BenchError.self) { try workload(seconds: 1e9) }
        #expect(throws: BenchError.self) { try workload(loads: []) }
        #expect(throws: BenchError.self) { try workload(loads: [1, 0]) }
        #expect(throws: BenchError.self) { try TokenLengths(prompt: 0...5) }
    }
}
