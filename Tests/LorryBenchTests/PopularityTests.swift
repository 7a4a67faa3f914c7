import LorryBench
import Testing

struct PopularityTests {
    /// The counts that follow from the definitions for a batch of 32.
    @Test(arguments: [
        (Popularity.distinct, [Int](repeating: 1, count: 32)),
        (.identical, [32]),
        (.uniform, [6, 6, 5, 5, 5, 5]),
        (.skewed, [11, 7, 5, 3, 2, 2, 1, 1]),
    ])
    func countsOfThirtyTwo(popularity: Popularity, counts: [Int]) {
        #expect(popularity.counts(requestCount: 32) == counts)
    }

    @Test func zipfFollowsItsLaw() {
        let counts = Popularity.zipf.counts(requestCount: 1000)
        // 1000 / H(1000) = 133.6
        #expect(counts[0] == 134)
        for index in 0..<20 {
            #expect(abs(Double(counts[index]) - 133.6 / Double(index + 1)) <= 1)
        }
    }

    @Test(arguments: Popularity.allCases)
    func countsAddUp(popularity: Popularity) {
        #expect(popularity.counts(requestCount: 0).isEmpty)
        for requestCount in 1...200 {
            let counts = popularity.counts(requestCount: requestCount)
            #expect(counts.reduce(0, +) == requestCount)
            #expect(counts.allSatisfy { $0 > 0 })
            #expect(counts == counts.sorted(by: >))
        }
    }

    @Test(arguments: Popularity.allCases)
    func assignmentHasTheCounts(popularity: Popularity) {
        let assignment = popularity.assignment(requestCount: 64, seed: 7)
        var counts: [Int: Int] = [:]
        for adapter in assignment { counts[adapter, default: 0] += 1 }
        let expected = popularity.counts(requestCount: 64)
        #expect(counts.count == expected.count)
        #expect(expected.indices.allSatisfy { counts[$0] == expected[$0] })
        #expect(assignment == popularity.assignment(requestCount: 64, seed: 7))
    }

    @Test func seedsShuffleDifferently() {
        let one = Popularity.distinct.assignment(requestCount: 64, seed: 1)
        #expect(one != Popularity.distinct.assignment(requestCount: 64, seed: 2))
        #expect(one != one.sorted())
    }
}
