/// A set of the numbers below a bound that knows its least and its greatest member.
///
/// A tree of 64-bit words: a bit of one level says whether the word below it has any bit.
///
/// - Complexity: every operation is O(log₆₄ bound).
package struct NumberSet {
    /// The first level has a bit per number, the last one is a single word.
    private var levels: [[UInt64]] = []
    package private(set) var count = 0

    /// - Parameter isFull: whether all numbers below `bound` are members, or none.
    package init(bound: Int, isFull: Bool) {
        var bitCount = max(bound, 1)
        repeat {
            var words = [UInt64](repeating: isFull ? .max : 0, count: (bitCount + 63) / 64)
            if isFull, bitCount % 64 != 0 { words[words.count - 1] = 1 << (bitCount % 64) - 1 }
            levels.append(words)
            bitCount = words.count
        } while bitCount > 1
        guard isFull else { return }
        count = bound
        if bound == 0 { levels[0][0] = 0 }
    }

    package func contains(_ number: Int) -> Bool {
        levels[0][number / 64] >> (number % 64) & 1 == 1
    }

    /// - Returns: false where it is a member already.
    @discardableResult
    package mutating func insert(_ number: Int) -> Bool {
        guard !contains(number) else { return false }
        var place = number
        for level in levels.indices {
            levels[level][place / 64] |= 1 << (place % 64)
            place /= 64
        }
        count += 1
        return true
    }

    /// - Returns: false where it is no member.
    @discardableResult
    package mutating func remove(_ number: Int) -> Bool {
        guard contains(number) else { return false }
        var place = number
        for level in levels.indices {
            levels[level][place / 64] &= ~(1 << (place % 64))
            if levels[level][place / 64] != 0 { break }
            place /= 64
        }
        count -= 1
        return true
    }

    package var first: Int? { descend { $0.trailingZeroBitCount } }
    package var last: Int? { descend { 63 - $0.leadingZeroBitCount } }

    /// From the top word to a member, `choose` naming a bit of a word that is not 0.
    private func descend(_ choose: (UInt64) -> Int) -> Int? {
        guard count > 0 else { return nil }
        var place = 0
        for level in levels.indices.reversed() {
            place = place * 64 + choose(levels[level][place])
        }
        return place
    }
}
