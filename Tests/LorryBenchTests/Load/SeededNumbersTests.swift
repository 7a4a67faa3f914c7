import Foundation
import LorryBench
import Testing

struct SeededNumbersTests {
    @Test func givesTheAlgorithmsNumbers() {
        // Of SplitMix64 with seed 0, as its authors' program prints them.
        var numbers = SeededNumbers(seed: 0)
        #expect(numbers.next() == 0xE220_A839_7B1D_CDAF)
        #expect(numbers.next() == 0x6E78_9E6A_A1B9_65F4)
        #expect(numbers.next() == 0x06C4_5D18_8009_454F)
    }

    @Test func pathsGiveIndependentNumbers() {
        var paths = Set<UInt64>()
        for tenant in 0..<20 as Range<UInt64> {
            for purpose in 0..<20 as Range<UInt64> {
                var numbers = SeededNumbers(seed: 7, path: tenant, purpose)
                paths.insert(numbers.next())
            }
        }
        #expect(paths.count == 400)
    }

    @Test func unitStaysInsideAndIsEven() {
        var numbers = SeededNumbers(seed: 3)
        let values = (0..<100_000).map { _ in numbers.unit() }
        #expect(values.allSatisfy { $0 > 0 && $0 < 1 })
        #expect(abs(mean(values) - 0.5) < 0.005)
        #expect(abs(variance(values) - 1.0 / 12) < 0.002)
    }

    @Test func integersReachBothEndsEquallyOften() {
        var numbers = SeededNumbers(seed: 4)
        var counts: [Int: Int] = [:]
        for _ in 0..<70_000 { counts[numbers.integer(in: -3...3), default: 0] += 1 }
        #expect(Set(counts.keys) == Set(-3...3))
        #expect(counts.values.allSatisfy { abs($0 - 10_000) < 500 })
        #expect(numbers.integer(in: 5...5) == 5)
        // Wider than Int can tell: any number is inside.
        _ = numbers.integer(in: Int.min...Int.max)
    }

    @Test func normalHasMeanNoughtAndVarianceOne() {
        var numbers = SeededNumbers(seed: 5)
        let values = (0..<100_000).map { _ in numbers.normal() }
        #expect(abs(mean(values)) < 0.015)
        #expect(abs(variance(values) - 1) < 0.02)
        #expect(abs(Double(values.count { abs($0) < 1 }) / 100_000 - 0.6827) < 0.01)
    }

    @Test(arguments: [(1.0, 2.0), (4, 0.25), (0.25, 4), (0.04, 10), (100, 0.01)])
    func gammaHasItsMeanAndVariance(shape: Double, scale: Double) {
        var numbers = SeededNumbers(seed: 6)
        let values = (0..<200_000).map { _ in numbers.gamma(shape: shape, scale: scale) }
        #expect(values.allSatisfy { $0 >= 0 })
        let deviation = scale * shape.squareRoot()
        #expect(abs(mean(values) - shape * scale) < 0.015 * deviation)
        #expect(abs(variance(values) / (deviation * deviation) - 1) < 0.08)
    }

    @Test(arguments: [0.3, 1.0, 2.5]) func powerHasItsDistribution(exponent: Double) {
        var numbers = SeededNumbers(seed: 8)
        let values = (0..<100_000).map { _ in numbers.power(exponent) }
        #expect(values.allSatisfy { $0 >= 0 && $0 <= 1 })
        // P(x < t) is t to the power of the exponent.
        for bound in [0.1, 0.5, 0.9] {
            let share = Double(values.count { $0 < bound }) / 100_000
            #expect(abs(share - pow(bound, exponent)) < 0.01)
        }
    }

    private func mean(_ values: [Double]) -> Double {
        values.reduce(0, +) / Double(values.count)
    }

    private func variance(_ values: [Double]) -> Double {
        let mean = mean(values)
        return values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(values.count)
    }
}
