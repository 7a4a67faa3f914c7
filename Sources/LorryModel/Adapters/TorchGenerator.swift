import Foundation

/// Torch's random numbers on a CPU, as adapters need them whose files hold only a seed.
///
/// A Mersenne Twister (MT19937, Matsumoto and Nishimura 1998) seeded by `init_genrand`; the
/// distributions take draws as torch 2 does, so that the numbers are the same up to the rounding of
/// transcendental functions.
package struct TorchGenerator {
    private static let size = 624
    private static let middle = 397

    private var state: [UInt32]
    private var next = Self.size
    /// Of the double-precision normal distribution, whose values come in pairs.
    private var spareNormal: Double?

    /// - Parameter seed: as for `manual_seed`, of which the low 32 bits count.
    package init(seed: Int) {
        state = [UInt32(truncatingIfNeeded: seed)]
        state.reserveCapacity(Self.size)
        for index in 1..<Self.size {
            let last = state[index - 1]
            state.append(1_812_433_253 &* (last ^ (last >> 30)) &+ UInt32(index))
        }
    }

    private mutating func refill() {
        state.withUnsafeMutableBufferPointer { state in
            for index in 0..<Self.size {
                let following = state[(index + 1) % Self.size]
                let mixed = (state[index] & 0x8000_0000) | (following & 0x7FFF_FFFF)
                state[index] =
                    state[(index + Self.middle) % Self.size] ^ (mixed >> 1)
                    ^ (mixed & 1 == 0 ? 0 : 0x9908_B0DF)
            }
        }
        next = 0
    }

    /// 32 random bits.
    package mutating func draw() -> UInt32 {
        if next == Self.size { refill() }
        var bits = state[next]
        next += 1
        bits ^= bits >> 11
        bits ^= (bits << 7) & 0x9D2C_5680
        bits ^= (bits << 15) & 0xEFC6_0000
        return bits ^ (bits >> 18)
    }

    private mutating func draw64() -> UInt64 {
        let high = UInt64(draw())
        return high << 32 | UInt64(draw())
    }

    /// In 0..<1, of 24 bits.
    package mutating func uniform() -> Float { Float(draw() & 0xFF_FFFF) * 0x1p-24 }

    /// `uniform_` of single precision.
    package mutating func uniform(count: Int, from low: Float, to high: Float) -> [Float] {
        (0..<count).map { _ in uniform() * (high - low) + low }
    }

    /// `uniform_` of bf16: the value of single precision, rounded; what becomes the rounded `high` is
    /// the rounded `low`.
    package mutating func roundedUniform(count: Int, from low: Float, to high: Float) -> [Float] {
        let (first, last) = (low.roundedToBFloat16, high.roundedToBFloat16)
        return (0..<count).map { _ in
            let value = (uniform() * (high - low) + low).roundedToBFloat16
            return value == last ? first : value
        }
    }

    /// `normal_` of single precision: of sixteen uniform numbers at a time by the method of Box and
    /// Muller, the last sixteen drawn again where they overlap; fewer than sixteen in double
    /// precision, one pair after the other.
    package mutating func normal(count: Int, deviation: Float) -> [Float] {
        guard count >= 16 else {
            return (0..<count).map { _ in Float(doubleNormal() * Double(deviation)) }
        }
        var values = (0..<count).map { _ in uniform() }
        for start in stride(from: 0, through: count - 16, by: 16) {
            Self.makeNormal(&values, from: start, deviation)
        }
        if count % 16 != 0 {
            for index in count - 16..<count { values[index] = uniform() }
            Self.makeNormal(&values, from: count - 16, deviation)
        }
        return values
    }

    private static func makeNormal(_ values: inout [Float], from start: Int, _ deviation: Float) {
        for index in start..<start + 8 {
            let radius = (-2 * log(1 - values[index])).squareRoot()
            let angle = 2 * Float.pi * values[index + 8]
            values[index] = radius * cos(angle) * deviation
            values[index + 8] = radius * sin(angle) * deviation
        }
    }

    private mutating func doubleNormal() -> Double {
        if let spare = spareNormal {
            spareNormal = nil
            return spare
        }
        func uniform(_ bits: UInt64) -> Double { Double(bits & (1 << 53 - 1)) * 0x1p-53 }
        let angle = 2 * Double.pi * uniform(draw64())
        let radius = (-2 * log1p(-uniform(draw64()))).squareRoot()
        spareNormal = radius * sin(angle)
        return radius * cos(angle)
    }

    /// The first `count` numbers of `randperm(bound)`.
    ///
    /// - Complexity: O(`count`), whatever the bound: only numbers that were moved are kept.
    package mutating func permutation(of bound: Int, prefix count: Int) -> [Int] {
        precondition(count <= bound)
        // Torch draws 64 bits where 32 would favour small remainders too much.
        let isLarge = bound >= Int(UInt32.max) / 20
        var moved: [Int: Int] = [:]
        moved.reserveCapacity(count)
        return (0..<count).map { index in
            // Torch does not draw for the last number, whose place is certain.
            guard index < bound - 1 else { return moved[index] ?? index }
            let left = UInt64(bound - index)
            let other = index + Int((isLarge ? draw64() : UInt64(draw())) % left)
            let value = moved[other] ?? other
            moved[other] = moved[index] ?? index
            return value
        }
    }
}

extension Float {
    /// The nearest number of bf16, ties to even. Finite only.
    var roundedToBFloat16: Float {
        let bits = bitPattern
        return Float(bitPattern: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) & 0xFFFF_0000)
    }
}
