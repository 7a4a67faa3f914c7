/// torch's random numbers on a CPU after `torch.manual_seed`: the Mersenne Twister MT19937 (Matsumoto
/// and Nishimura, ACM Transactions on Modeling and Computer Simulation 8, 1998).
struct TorchRandom {
    private var state: [UInt32]
    private var position: Int

    private static let size = 624
    private static let offset = 397

    /// - Parameter seed: of which the low 32 bits count.
    init(seed: UInt64) {
        state = [UInt32(truncatingIfNeeded: seed)]
        state.reserveCapacity(Self.size)
        for index in 1..<Self.size {
            let last = state[index - 1]
            state.append(1_812_433_253 &* (last ^ (last >> 30)) &+ UInt32(index))
        }
        position = Self.size
    }

    mutating func next() -> UInt32 {
        if position == Self.size { refill() }
        var bits = state[position]
        position += 1
        bits ^= bits >> 11
        bits ^= (bits << 7) & 0x9d2c_5680
        bits ^= (bits << 15) & 0xefc6_0000
        return bits ^ (bits >> 18)
    }

    /// True as often as `torch.bernoulli` of a tensor of this probability gives 1.
    mutating func bernoulli(_ probability: Float) -> Bool {
        Float(next() & 0xff_ffff) * 0x1p-24 < probability
    }

    mutating func skip(_ count: Int) {
        var left = count
        while left > 0 {
            if position == Self.size { refill() }
            let step = min(left, Self.size - position)
            position += step
            left -= step
        }
    }

    private mutating func refill() {
        for index in 0..<Self.size {
            let mixed =
                (state[index] & 0x8000_0000) | (state[(index + 1) % Self.size] & 0x7fff_ffff)
            state[index] =
                state[(index + Self.offset) % Self.size] ^ (mixed >> 1)
                ^ (mixed & 1 == 0 ? 0 : 0x9908_b0df)
        }
        position = 0
    }
}
