/// Merges tensors of several adapters number by number, as peft's `merge_utils` does.
struct TaskArithmetic {
    enum Kind {
        case sum, prunedSum, ties, dareSum, dareTies

        var isRandom: Bool { self == .dareSum || self == .dareTies }
    }

    let kind: Kind
    let density: Double
    let majoritySign: MergeOptions.MajoritySign
    var random: TorchGenerator

    /// - Parameters:
    ///   - tensors: of equal size.
    ///   - weights: one for each.
    mutating func merge(_ tensors: [[Float]], weights: [Float]) -> [Float] {
        var pruned = tensors
        for index in pruned.indices { prune(&pruned[index]) }
        switch kind {
        case .sum, .prunedSum, .dareSum: return Self.sum(pruned, weights)
        case .ties, .dareTies: return disjointSum(pruned, weights)
        }
    }

    private mutating func prune(_ tensor: inout [Float]) {
        guard kind != .sum, density < 1 else { return }
        if kind.isRandom {
            let (probability, divisor) = (Float(density), Float(density))
            for index in tensor.indices {
                // As `torch.bernoulli` of a tensor does it.
                tensor[index] = random.uniform() < probability ? tensor[index] / divisor : 0
            }
        } else {
            Self.keepLargest(Int(density * Double(tensor.count)), of: &tensor)
        }
    }

    /// Sets all but the `count` numbers of the largest magnitude to zero; of equal ones the first
    /// stay.
    static func keepLargest(_ count: Int, of tensor: inout [Float]) {
        guard count < tensor.count else { return }
        // The bits of magnitudes are in their order. Two passes find the smallest that stays.
        let high = threshold(count, tensor.lazy.map { ($0.magnitude.bitPattern >> 16, true) })
        let low = threshold(
            count - high.above,
            tensor.lazy.map {
                let bits = $0.magnitude.bitPattern
                return (bits & 0xffff, bits >> 16 == high.value)
            })
        let smallest = high.value << 16 | low.value
        var equalsLeft = count - high.above - low.above
        for index in tensor.indices {
            let bits = tensor[index].magnitude.bitPattern
            if bits > smallest { continue }
            if bits == smallest, equalsLeft > 0 {
                equalsLeft -= 1
            } else {
                tensor[index] = 0
            }
        }
    }

    /// The largest value such that at least `count` of the counted are at or above it, and how many
    /// are above.
    private static func threshold(
        _ count: Int, _ values: some Sequence<(UInt32, Bool)>
    ) -> (value: UInt32, above: Int) {
        var counts = [Int](repeating: 0, count: 1 << 16)
        for (value, isCounted) in values where isCounted { counts[Int(value)] += 1 }
        var above = 0
        for value in counts.indices.reversed() {
            if above + counts[value] >= count { return (UInt32(value), above) }
            above += counts[value]
        }
        return (0, above)
    }

    private static func sum(_ tensors: [[Float]], _ weights: [Float]) -> [Float] {
        var total = [Float](repeating: 0, count: tensors.first?.count ?? 0)
        for (tensor, weight) in zip(tensors, weights) {
            for index in total.indices { total[index] += tensor[index] * weight }
        }
        return total
    }

    /// The mean of the numbers that have the majority's sign; the sign of zero is nobody's.
    private func disjointSum(_ tensors: [[Float]], _ weights: [Float]) -> [Float] {
        (0..<(tensors.first?.count ?? 0)).map { index in
            var magnitude: Float = 0
            for tensor in tensors {
                let number = tensor[index]
                magnitude += majoritySign == .total ? number : Self.sign(number)
            }
            let majority: Float = magnitude >= 0 ? 1 : -1
            var (total, count) = (Float(0), Float(0))
            for (tensor, weight) in zip(tensors, weights)
            where Self.sign(tensor[index]) == majority {
                total += tensor[index] * weight
                count += 1
            }
            return total / max(count, 1)
        }
    }

    private static func sign(_ number: Float) -> Float {
        number > 0 ? 1 : number < 0 ? -1 : 0
    }
}
