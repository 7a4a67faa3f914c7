import LorryEngine
import Testing

@Suite struct WaitingQueueTests {
    private func accepts(
        _ queue: WaitingQueue, _ count: Int = 1, tokenCount: Int = 0, _ tenant: String = "x"
    ) -> Bool {
        (try? queue.take(count, tokenCount: tokenCount, tenant: tenant)) != nil
    }

    @Test func boundsRequestsAndTokens() throws {
        let queue = WaitingQueue(bounds: .init(count: 3, tokenCount: 100))
        #expect(accepts(queue, tokenCount: 60))
        #expect(!accepts(queue, tokenCount: 41))
        #expect(accepts(queue, tokenCount: 40))
        #expect(accepts(queue, tokenCount: 0))
        #expect(!accepts(queue, tokenCount: 0))
        queue.giveBack(1, tokenCount: 60, tenant: "x")
        #expect(accepts(queue, tokenCount: 60))
    }

    @Test func aPromptLongerThanTheBoundWaitsAlone() throws {
        let queue = WaitingQueue(bounds: .init(count: 9, tokenCount: 100))
        #expect(accepts(queue, tokenCount: 1_000))
        #expect(!accepts(queue, tokenCount: 1))
    }

    @Test func oneTenantCannotFillASharedQueue() throws {
        let queue = WaitingQueue(bounds: .init(count: 100, tokenCount: 1_000, isShared: true))
        var flood = 0
        while accepts(queue, tokenCount: 2, "flood") { flood += 1 }
        #expect(flood == 75 || flood == 74)
        #expect(accepts(queue, tokenCount: 2, "other"))
        let alone = WaitingQueue(bounds: .init(count: 100))
        #expect(accepts(alone, 100))
    }

    @Test func correctsWhatWasEstimated() throws {
        let queue = WaitingQueue(bounds: .init(count: 4, tokenCount: 100))
        try queue.take(2, tokenCount: 40, tenant: "x")
        var reservation: QueueReservation? = QueueReservation(
            queue: queue, count: 2, tokenCount: 40, tenant: "x")
        try reservation?.correct(tokenCount: 90)
        #expect(queue.takenTokenCount == 90)
        try queue.take(1, tokenCount: 5, tenant: "y")
        #expect(throws: EngineError.self) { try reservation?.correct(tokenCount: 101) }
        #expect(queue.takenTokenCount == 95)
        queue.giveBack(1, tokenCount: 5, tenant: "y")
        try reservation?.correct(tokenCount: 20)
        var places = [reservation?.take(tokenCount: 12), reservation?.take(tokenCount: 8)]
        reservation = nil
        #expect(queue.takenTokenCount == 20)
        places.removeLast()
        #expect(queue.takenTokenCount == 12)
        places.removeAll()
        #expect(queue.takenTokenCount == 0 && queue.takenCount == 0)
    }

    /// The estimate is the request's own: it is no reason to keep it waiting.
    @Test func aPromptThatIsLongerThanEstimatedIsTakenAlone() throws {
        let queue = WaitingQueue(bounds: .init(count: 4, tokenCount: 100))
        try queue.take(1, tokenCount: 40, tenant: "x")
        let reservation = QueueReservation(queue: queue, count: 1, tokenCount: 40, tenant: "x")
        try reservation.correct(tokenCount: 161)
        #expect(queue.takenTokenCount == 161)
    }

    /// Who has places keeps them, however many others have taken meanwhile.
    @Test func aCorrectionDoesNotAskForThePlacesAgain() throws {
        let queue = WaitingQueue(bounds: .init(count: 8, tokenCount: 1_000, isShared: true))
        try queue.take(6, tokenCount: 60, tenant: "x")
        let reservation = QueueReservation(queue: queue, count: 6, tokenCount: 60, tenant: "x")
        try queue.take(1, tokenCount: 10, tenant: "y")
        try reservation.correct(tokenCount: 90)
        #expect(queue.takenTokenCount == 100)
    }

    @Test func whatCanNeverWaitIsNotAskedToRetry() {
        let queue = WaitingQueue(bounds: .init(count: 4))
        #expect(throws: EngineError.queueTooSmall(sequenceCount: 5, limit: 4)) {
            try queue.take(5)
        }
    }

    @Test func idleTimeSaysNothingAboutTheQueue() throws {
        let queue = WaitingQueue(bounds: .init(count: 2))
        let start = ContinuousClock.now
        for hour in 0..<3 {
            try queue.take(1)
            queue.giveBack(1)
            queue.noteStart(start + .seconds(3_600 * hour))
        }
        try queue.take(2)
        #expect(throws: EngineError.queueFull(retryAfter: .seconds(1))) { try queue.take(1) }
    }
}
