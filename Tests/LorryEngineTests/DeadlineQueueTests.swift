import LorryEngine
import Testing

@Suite struct DeadlineQueueTests {
    private let start = ContinuousClock.now

    private func id(_ value: UInt64) -> SequenceID { SequenceID(value: value) }

    @Test func comesInTheOrderOfDeadlines() {
        var queue = DeadlineQueue()
        for value in [5, 2, 9, 2, 7] as [UInt64] {
            queue.insert(id(value), start + .seconds(Int(value)))
        }
        #expect(queue.first == start + .seconds(2))
        #expect(queue.popFirst(upTo: start + .seconds(1)) == nil)
        var found: [SequenceID] = []
        while let next = queue.popFirst(upTo: start + .seconds(7)) { found.append(next) }
        #expect(found == [2, 2, 5, 7].map(id))
        #expect(queue.count == 1)
    }

    @Test func forgetsWhatHasEnded() {
        var queue = DeadlineQueue()
        for value in 0..<100 { queue.insert(id(UInt64(value)), start + .seconds(100 - value)) }
        queue.keep { $0.value.isMultiple(of: 10) }
        #expect(queue.count == 10)
        #expect(queue.popFirst(upTo: start + .seconds(200)) == id(90))
    }
}

@Suite struct MailboxTests {
    @Test func waitsUntilADeadlineAtMost() {
        let mailbox = Mailbox()
        #expect(mailbox.takeAll(waiting: true, until: .now + .milliseconds(20)).isEmpty)
        #expect(mailbox.takeAll(waiting: true, until: .now - .seconds(1)).isEmpty)
        mailbox.send(.drain)
        #expect(mailbox.takeAll(waiting: true).count == 1)
    }
}
