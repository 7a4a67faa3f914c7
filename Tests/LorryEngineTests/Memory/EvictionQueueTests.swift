import LorryEngine
import Testing

@Suite struct EvictionQueueTests {
    @Test(arguments: [1, 2, 3] as [UInt64])
    func agreesWithASortedList(_ seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var queue = EvictionQueue(candidateCount: 10)
        var expected: [Int: EvictionQueue.Rank] = [:]
        for step in 0..<5000 {
            let candidate = Int.random(in: 0..<40, using: &random)
            if expected[candidate] == nil {
                let rank = EvictionQueue.Rank(
                    priority: Double(Int.random(in: 0..<6, using: &random)), stamp: UInt64(step))
                queue.insert(candidate, rank)
                expected[candidate] = rank
            } else {
                let isThere = queue.remove(candidate)
                #expect(isThere)
                expected[candidate] = nil
            }
            let first = expected.min { $0.value < $1.value }
            let isRight =
                queue.count == expected.count && queue.first?.candidate == first?.key
                && queue.contains(candidate) == (expected[candidate] != nil)
            #expect(isRight, "seed \(seed), step \(step)")
            #expect(queue.findFault() == nil)
        }
    }

    @Test func ofEqualPrioritiesTheOlderGoesFirst() {
        var queue = EvictionQueue(candidateCount: 4)
        for candidate in [2, 0, 3] {
            queue.insert(candidate, .init(priority: 1, stamp: UInt64(10 - candidate)))
        }
        #expect(queue.first?.candidate == 3)
        queue.insert(1, .init(priority: 0.5, stamp: 99))
        #expect(queue.first?.candidate == 1)
    }
}
