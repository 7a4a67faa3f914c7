import LorryEngine
import Testing

@Suite struct LoadTimeEstimateTests {
    @Test func followsWhatLoadsTook() {
        var estimate = LoadTimeEstimate()
        #expect(estimate.duration(byteCount: 10_000_000) == .milliseconds(10))
        for _ in 0..<50 { estimate.note(byteCount: 5_000_000, duration: .milliseconds(20)) }
        let found = estimate.duration(byteCount: 10_000_000) / .milliseconds(1)
        #expect(abs(found - 40) < 0.1)
        // One that took long counts a fifth.
        estimate.note(byteCount: 5_000_000, duration: .milliseconds(120))
        #expect(abs(estimate.duration(byteCount: 5_000_000) / .milliseconds(1) - 40) < 0.1)
    }

    @Test func nothingIsLearntFromNoBytes() {
        var estimate = LoadTimeEstimate()
        estimate.note(byteCount: 0, duration: .seconds(5))
        #expect(estimate == LoadTimeEstimate())
        #expect(estimate.duration(byteCount: 0) == .zero)
    }
}
