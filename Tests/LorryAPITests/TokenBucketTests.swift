import Foundation
import LorryAPI
import LorryRegistry
import Testing

@Suite struct TokenBucketTests {
    private let start = ContinuousClock.now

    @Test func refillsInAMinute() {
        var bucket = TokenBucket(capacity: 60, at: start)
        #expect(bucket.remaining == 60)
        #expect(bucket.wait(for: 60) == .zero)
        bucket.take(60)
        #expect(bucket.remaining == 0)
        #expect(bucket.wait(for: 1) == .seconds(1))
        #expect(bucket.wait(for: 60) == .seconds(60))
        for second in 1...60 {
            bucket.refill(at: start + .seconds(second))
            #expect(bucket.remaining == second)
        }
        bucket.refill(at: start + .seconds(1000))
        #expect(bucket.remaining == 60)
        #expect(bucket.reset == .zero)
    }

    /// After the time that it names there is enough, and not a little earlier.
    @Test func theWaitIsTrue() {
        for capacity in [1, 2, 3, 7, 59, 60, 1000, 123_457] {
            for taken in [1, capacity / 2, capacity, 3 * capacity] {
                for wanted in [1, capacity / 3, capacity] {
                    var bucket = TokenBucket(capacity: capacity, at: start)
                    bucket.take(taken)
                    let wait = bucket.wait(for: wanted)
                    guard wait > .zero else { continue }
                    var early = bucket
                    early.refill(at: start + wait * 0.99)
                    #expect(early.wait(for: wanted) > .zero)
                    bucket.refill(at: start + wait)
                    #expect(bucket.wait(for: wanted) == .zero)
                }
            }
        }
    }

    @Test func debtIsPaidFirst() {
        var bucket = TokenBucket(capacity: 60, at: start)
        bucket.take(180)
        #expect(bucket.remaining == 0)
        #expect(bucket.wait(for: 0) == .seconds(120))
        bucket.giveBack(120)
        #expect(bucket.wait(for: 1) == .seconds(1))
        bucket.giveBack(1000)
        #expect(bucket.remaining == 60)
    }

    @Test func whatIsTakenStaysTakenWhenTheLimitChanges() {
        var bucket = TokenBucket(capacity: 60, at: start)
        bucket.take(50)
        bucket.resize(to: 100, at: start)
        #expect(bucket.remaining == 50)
        bucket.resize(to: 60, at: start)
        #expect(bucket.remaining == 10)
        bucket.resize(to: 20, at: start)
        #expect(bucket.wait(for: 0) == .seconds(90))
    }

    @Test func quotasBeginAnewWithTheirPeriod() throws {
        let day = try #require(UTCDay("2026-11-30"))
        var today = TokenQuota(.day, on: day)
        var month = TokenQuota(.month, on: day)
        today.take(10)
        month.take(10)
        #expect(today.end.text == "2026-12-01")
        #expect(month.end.text == "2026-12-01")
        let next = try #require(UTCDay("2026-12-01"))
        today.advance(to: next)
        month.advance(to: next)
        #expect(today.used == 0)
        #expect(month.used == 0)
        // What an earlier period gave is not given back to this one.
        month.take(3)
        month.giveBack(2, from: day)
        #expect(month.used == 3)
        month.advance(to: day)
        #expect(month.used == 3)
        let later = try #require(UTCDay("2026-12-31"))
        month.advance(to: later)
        #expect(month.used == 3)
        #expect(month.end.text == "2027-01-01")
    }

    @Test func daysOfUTC() throws {
        let newYear = try Date("2027-01-01T00:00:00Z", strategy: .iso8601)
        #expect(UTCDay(newYear).text == "2027-01-01")
        #expect(UTCDay(newYear.addingTimeInterval(-1)).text == "2026-12-31")
        #expect(UTCDay(newYear).adding(days: -400).text == "2025-11-27")
        #expect(try #require(UTCDay("2028-02-29")).firstOfMonth.text == "2028-02-01")
        for bad in ["", "2027", "2027-1-1", "2027-02-29", "x", "2027-01-01T00:00:00Z"] {
            #expect(UTCDay(bad) == nil, "\(bad)")
        }
    }

    @Test func durationsAsOpenAIWritesThem() {
        let texts = [
            (Duration.zero, "0ms"), (.milliseconds(20), "20ms"), (.seconds(1), "1s"),
            (.milliseconds(1500), "1.5s"), (.seconds(360), "6m0s"), (.seconds(61.25), "1m1.25s"),
        ]
        for (duration, text) in texts { #expect(RateLimitHeaders.text(duration) == text) }
    }
}
