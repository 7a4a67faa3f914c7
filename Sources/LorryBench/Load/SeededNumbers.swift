/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): the same
/// seed gives the same workload on every machine.
package struct SeededNumbers: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    /// One of many independent generators that come from one seed, told apart by numbers such as a
    /// tenant's and that of a purpose.
    package init(seed: UInt64, path: UInt64...) {
        var numbers = SeededNumbers(seed: seed)
        for step in path {
            numbers = SeededNumbers(seed: numbers.next() ^ (step &* 0xD6E8_FEB8_6659_FD93))
        }
        self = numbers
    }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

extension SeededNumbers {
    /// Evenly spread over the open interval from 0 to 1: one of the 2⁵² middles of equal parts.
    package mutating func unit() -> Double { (Double(next() >> 12) + 0.5) * 0x1p-52 }

    /// Evenly spread over the range, but for a bias below 2⁻⁴⁰ of a part in ranges below 2²⁴.
    ///
    /// Not `Int.random`, whose way from bits to numbers is not promised to stay.
    package mutating func integer(in range: ClosedRange<Int>) -> Int {
        let (width, overflows) = range.upperBound.subtractingReportingOverflow(range.lowerBound)
        guard !overflows, width < .max else { return Int(truncatingIfNeeded: next()) }
        return range.lowerBound + Int(next().multipliedFullWidth(by: UInt64(width) + 1).high)
    }

    /// Of the normal distribution with mean 0 and variance 1, by Marsaglia's polar method.
    package mutating func normal() -> Double {
        while true {
            let x = 2 * unit() - 1
            let y = 2 * unit() - 1
            let square = x * x + y * y
            guard square < 1, square > 0 else { continue }
            return x * (-2 * PortableMath.logarithm(square) / square).squareRoot()
        }
    }

    /// Of the Gamma distribution with the given shape and mean shape · scale.
    ///
    /// Marsaglia and Tsang: A simple method for generating gamma variables (2000); shapes below 1
    /// by their note in section 6, γ(a) = γ(a + 1) · u^(1/a).
    /// - Parameter shape: above 0.
    package mutating func gamma(shape: Double, scale: Double) -> Double {
        guard shape >= 1 else {
            let larger = gamma(shape: shape + 1, scale: scale)
            return larger * PortableMath.power(unit(), 1 / shape)
        }
        let d = shape - 1.0 / 3
        let c = 1 / (9 * d).squareRoot()
        while true {
            let x = normal()
            let root = 1 + c * x
            guard root > 0 else { continue }
            let v = root * root * root
            let bound = 0.5 * x * x + d - d * v + d * PortableMath.logarithm(v)
            if PortableMath.logarithm(unit()) < bound { return d * v * scale }
        }
    }

    /// Of the density a · x^(a - 1) between 0 and 1, as numpy's `power(a)`: u^(1/a).
    package mutating func power(_ exponent: Double) -> Double {
        PortableMath.power(unit(), 1 / exponent)
    }
}
