/// Functions whose results have the same bits on every machine, for traces that must not depend on
/// the system's mathematical library: additions, products and divisions in one fixed order. Their
/// error is some units in the last place.
package enum PortableMath {
    /// ln 2 in two parts; products of the first with integers below 2²⁰ are exact.
    private static let ln2High = 0x1.62e42feep-1
    private static let ln2Low = 0x1.a39ef35793c76p-33

    /// The natural logarithm.
    ///
    /// - Parameter value: a normal number above 0.
    package static func logarithm(_ value: Double) -> Double {
        var exponent = Double(value.exponent)
        var fraction = value.significand
        if fraction > 1.414213562373095 {
            fraction /= 2
            exponent += 1
        }
        // ln m = 2 artanh((m - 1) / (m + 1)) with an argument of at most 0.1716.
        let t = (fraction - 1) / (fraction + 1)
        let square = t * t
        var sum = 0.0
        for divisor in stride(from: 25.0, through: 1, by: -2) { sum = sum * square + 1 / divisor }
        return exponent * ln2High + (exponent * ln2Low + 2 * t * sum)
    }

    /// e to the power of `value`; 0 below -745, infinity above 709.7.
    package static func exponential(_ value: Double) -> Double {
        guard value > -745 else { return 0 }
        guard value < 709.7 else { return .infinity }
        let exponent = (value / (ln2High + ln2Low)).rounded()
        let rest = value - exponent * ln2High - exponent * ln2Low
        var sum = 1.0
        for divisor in stride(from: 16.0, through: 1, by: -1) { sum = 1 + sum * rest / divisor }
        return Double(sign: .plus, exponent: Int(exponent), significand: sum)
    }

    /// - Parameter base: a normal number above 0.
    package static func power(_ base: Double, _ exponent: Double) -> Double {
        exponential(exponent * logarithm(base))
    }
}
