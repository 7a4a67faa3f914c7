import Foundation
import LorryBench
import Testing

struct PortableMathTests {
    @Test func logarithmAgreesWithTheSystems() {
        var numbers = SeededNumbers(seed: 1)
        for _ in 0..<20_000 {
            let value = exp((numbers.unit() - 0.5) * 1400)
            let expected = log(value)
            #expect(
                abs(PortableMath.logarithm(value) - expected) <= 4 * expected.ulp, "ln \(value)")
        }
        for value in [1 - 0x1p-53, 1 + 0x1p-52, 0.999, 1.001, 2.0.squareRoot(), 0.5.squareRoot()] {
            let expected = log(value)
            #expect(abs(PortableMath.logarithm(value) - expected) <= 4 * expected.ulp)
        }
        #expect(PortableMath.logarithm(1) == 0)
    }

    @Test func exponentialAgreesWithTheSystems() {
        var numbers = SeededNumbers(seed: 2)
        for _ in 0..<20_000 {
            let value = (numbers.unit() - 0.5) * 1400
            let expected = exp(value)
            #expect(
                abs(PortableMath.exponential(value) - expected) <= 4 * expected.ulp, "e^\(value)")
        }
        #expect(PortableMath.exponential(0) == 1)
        #expect(PortableMath.exponential(-1e6) == 0)
        #expect(PortableMath.exponential(1e6) == .infinity)
    }

    @Test func powersAreNearTheSystems() {
        var numbers = SeededNumbers(seed: 3)
        for _ in 0..<20_000 {
            let base = numbers.unit()
            let exponent = numbers.unit() * 10
            let expected = pow(base, exponent)
            #expect(abs(PortableMath.power(base, exponent) / expected - 1) < 1e-12)
        }
    }
}
