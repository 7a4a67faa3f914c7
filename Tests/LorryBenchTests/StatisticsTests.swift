import LorryBench
import Testing

struct StatisticsTests {
    @Test func findsTheMiddle() {
        #expect(Samples([3, 1, 2]).median == 2)
        #expect(Samples([4, 1, 3, 2]).median == 2.5)
        #expect(Samples([7]).median == 7)
        #expect(Samples([]).median == 0)
    }

    @Test func findsPercentiles() {
        let samples = Samples((1...100).map(Double.init))
        #expect(samples.percentile(0.95) == 95)
        #expect(samples.percentile(0.5) == 50)
        #expect(samples.percentile(0) == 1)
        #expect(samples.percentile(1) == 100)
        #expect(Samples([5, 6]).percentile(0.95) == 6)
        #expect(Samples([]).percentile(0.95) == 0)
    }
}
