import LorryHTTP
import NIOCore
import Testing

@Suite struct AbuseBudgetTests {
    private let start = NIODeadline.uptimeNanoseconds(5_000_000_000)

    @Test func bucketGivesItsBurstThenItsRate() {
        var bucket = TokenBucket(.init(burst: 3, perSecond: 2), at: start)
        let first = (0..<4).map { _ in bucket.take(at: start) }
        #expect(first == [true, true, true, false])
        let later = start + .milliseconds(500)
        let second = (0..<2).map { _ in bucket.take(at: later) }
        #expect(second == [true, false])
        // Never more than the burst, however long the pause.
        let muchLater = start + .seconds(1000)
        let third = (0..<4).map { _ in bucket.take(at: muchLater) }
        #expect(third == [true, true, true, false])
    }

    @Test func timeThatGoesBackGivesNothing() {
        var bucket = TokenBucket(.init(burst: 1, perSecond: 1000), at: start)
        let taken = [bucket.take(at: start), bucket.take(at: start - .seconds(10))]
        #expect(taken == [true, false])
    }

    @Test func sentDataPaysForWindowUpdates() {
        var allowances = AbuseBudget.Allowances()
        allowances[.windowUpdate] = .init(burst: 4, perSecond: 0)
        var budget = AbuseBudget(allowances, at: start)
        let spent = (0..<5).map { _ in budget.spend(.windowUpdate, at: start) }
        #expect(spent == [true, true, true, true, false])
        budget.creditSentData()
        let again = budget.spend(.windowUpdate, at: start)
        #expect(again)
    }

    @Test func bodyPaceBlamesOnlyAWaitingServer() {
        var limits = HTTPLimits()
        limits.bodyIdleTimeout = .seconds(5)
        limits.bodyByteRate = 100
        var pace = BodyPace()
        let unread = (0..<100).map { _ in
            pace.elapsed(.seconds(1), isHungry: false, limits: limits)
        }
        #expect(unread.allSatisfy { $0 })
        let waited = (0..<6).map { _ in
            pace.elapsed(.seconds(1), isHungry: true, limits: limits)
        }
        #expect(waited == [true, true, true, true, true, false])

        var dripping = BodyPace()
        var verdicts: [Bool] = []
        for _ in 0..<8 {
            dripping.received(10)
            verdicts.append(dripping.elapsed(.seconds(1), isHungry: true, limits: limits))
        }
        #expect(verdicts.prefix(5).allSatisfy { $0 })
        #expect(verdicts.contains(false))
    }

    /// A body cannot be drawn out by bringing just enough for the first minutes.
    @Test(arguments: [(900, true), (1000, true), (600, false), (99, false)])
    func aLongBodyMustBringMore(byteRate: Int, lasts: Bool) {
        var limits = HTTPLimits()
        limits.bodyIdleTimeout = .seconds(5)
        limits.bodyByteRate = 100
        limits.longBodyTimeout = .seconds(20)
        limits.longBodyByteRate = 1000
        var pace = BodyPace()
        // At 900 bytes a second what came before the 20 s carries it to 200 s.
        let lasted = (1...190).prefix { _ in
            pace.received(byteRate)
            return pace.elapsed(.seconds(1), isHungry: true, limits: limits)
        }.count
        #expect((lasted == 190) == lasts, "\(lasted) s")
        #expect(lasts || lasted == (byteRate < 100 ? 5 : 50))
        // Time in which the server reads nothing is not the client's.
        var unread = BodyPace()
        unread.received(1)
        let verdicts = (0..<100).map { _ in
            unread.elapsed(.seconds(1), isHungry: false, limits: limits)
        }
        #expect(verdicts.allSatisfy { $0 })
    }
}
