/// Numbers of numpy's `default_rng`, as adapters need them whose files hold only a seed: PCG64
/// (XSL RR 128/64, O'Neill 2014) seeded through a `SeedSequence`, and the generator's `choice` and
/// `shuffle` of whole numbers.
package struct NumpyGenerator {
    private var state: UInt128
    private let increment: UInt128
    /// The upper half of a draw whose lower half was used.
    private var spare: UInt32?

    private static let multiplier: UInt128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645

    package init(seed: UInt64) {
        var words = SeedWords(entropy: seed)
        let numbers = (0..<4).map { _ in words.next() }
        state = 0
        increment = (UInt128(numbers[2]) << 64 | UInt128(numbers[3])) << 1 | 1
        advance()
        state &+= UInt128(numbers[0]) << 64 | UInt128(numbers[1])
        advance()
    }

    private mutating func advance() { state = state &* Self.multiplier &+ increment }

    private mutating func draw64() -> UInt64 {
        advance()
        let folded = UInt64(truncatingIfNeeded: state >> 64) ^ UInt64(truncatingIfNeeded: state)
        let turn = UInt64(truncatingIfNeeded: state >> 122)
        return folded >> turn | folded << ((64 - turn) & 63)
    }

    private mutating func draw32() -> UInt32 {
        if let high = spare {
            spare = nil
            return high
        }
        let bits = draw64()
        spare = UInt32(truncatingIfNeeded: bits >> 32)
        return UInt32(truncatingIfNeeded: bits)
    }

    /// In `0...bound`, without bias (Lemire 2019).
    private mutating func draw(upTo bound: Int) -> Int {
        precondition(bound >= 0 && bound < UInt32.max)
        guard bound > 0 else { return 0 }
        let count = UInt64(bound) + 1
        var product = UInt64(draw32()) * count
        if UInt32(truncatingIfNeeded: product) < UInt32(count) {
            let threshold = (UInt32.max - UInt32(bound)) % UInt32(count)
            while UInt32(truncatingIfNeeded: product) < threshold {
                product = UInt64(draw32()) * count
            }
        }
        return Int(product >> 32)
    }

    /// In `0...bound`: as many bits as the bound has, until they do not exceed it.
    private mutating func drawMasked(upTo bound: Int) -> Int {
        precondition(bound > 0 && bound <= UInt32.max)
        let mask = UInt32.max >> UInt32(bound).leadingZeroBitCount
        while true {
            let value = draw32() & mask
            if value <= UInt32(bound) { return Int(value) }
        }
    }

    /// `shuffle`
    package mutating func shuffle(_ numbers: inout [Int32]) {
        for index in stride(from: numbers.count - 1, to: 0, by: -1) {
            numbers.swapAt(index, drawMasked(upTo: index))
        }
    }

    /// As `choice` shuffles, which draws otherwise than `shuffle`; from the end to `first`.
    private mutating func shuffleChoice(_ numbers: inout [Int32], from first: Int = 1) {
        for index in stride(from: numbers.count - 1, through: first, by: -1) {
            numbers.swapAt(index, draw(upTo: index))
        }
    }

    /// `choice(bound, size: count, replace=False)`
    package mutating func choice(of bound: Int, count: Int) -> [Int32] {
        precondition(count <= bound && bound <= Int(Int32.max))
        if bound > 10_000, count > bound / 50 {
            var all = (0..<Int32(bound)).map { $0 }
            shuffleChoice(&all, from: max(bound - count, 1))
            return Array(all[(bound - count)...])
        }
        // Floyd's algorithm.
        var seen: Set<Int32> = []
        var chosen: [Int32] = []
        for last in bound - count..<bound {
            let drawn = Int32(draw(upTo: last))
            let value = seen.contains(drawn) ? Int32(last) : drawn
            seen.insert(value)
            chosen.append(value)
        }
        shuffleChoice(&chosen)
        return chosen
    }
}

/// numpy's `SeedSequence` of one number.
private struct SeedWords {
    private var pool: [UInt32]
    private var hash: UInt32 = 0x8B51_F9DD
    private var position = 0

    init(entropy: UInt64) {
        // A number of 32 bits is one word: the rest of the pool takes zeros either way.
        let words = [
            UInt32(truncatingIfNeeded: entropy), UInt32(truncatingIfNeeded: entropy >> 32), 0, 0,
        ]
        var hash: UInt32 = 0x43B0_D7E5
        func hashed(_ word: UInt32) -> UInt32 {
            var value = word ^ hash
            hash = hash &* 0x931E_8875
            value = value &* hash
            return value ^ value >> 16
        }
        var pool = words.map { hashed($0) }
        for source in pool.indices {
            for target in pool.indices where target != source {
                let mixed = pool[target] &* 0xCA01_F9DD &- hashed(pool[source]) &* 0x4973_F715
                pool[target] = mixed ^ mixed >> 16
            }
        }
        self.pool = pool
    }

    private mutating func nextWord() -> UInt32 {
        var value = pool[position % pool.count] ^ hash
        position += 1
        hash = hash &* 0x58F3_8DED
        value = value &* hash
        return value ^ value >> 16
    }

    mutating func next() -> UInt64 {
        let low = UInt64(nextWord())
        return UInt64(nextWord()) << 32 | low
    }
}
