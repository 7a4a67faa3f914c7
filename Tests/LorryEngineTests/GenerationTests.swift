import LorryEngine
import Synchronization
import Testing

@Suite struct GenerationTests {
    /// Counts what a channel tells the engine.
    private final class Signals: Sendable {
        let seen = Mutex<[EventChannel.Signal]>([])

        func channel(capacity: Int = 4) -> EventChannel {
            EventChannel(capacity: capacity) { signal in self.seen.withLock { $0.append(signal) } }
        }

        var all: [EventChannel.Signal] { seen.withLock { $0 } }
    }

    private let signals = Signals()
    private let end = GenerationEvent.finished(
        GenerationSummary(
            reason: .length, promptTokenCount: 1, completionTokenCount: 1, cachedTokenCount: 0,
            timings: GenerationTimings()))

    private func token(_ id: Int32) -> GenerationEvent {
        .token(GeneratedToken(id: id, logprobs: nil))
    }

    private func ids(_ generation: Generation) async -> [Int32?] {
        var ids: [Int32?] = []
        for await event in generation {
            if case .token(let token) = event { ids.append(token.id) } else { ids.append(nil) }
        }
        return ids
    }

    @Test func eventsArriveInOrderAndEndOnce() async {
        let channel = signals.channel()
        let generation = Generation(channel: channel)
        let reader = Task { await ids(generation) }
        for id in 0..<100 { channel.send(token(Int32(id))) }
        channel.send(end)
        #expect(await reader.value == (0..<100).map { Int32($0) } + [nil])
        #expect(await ids(generation).isEmpty, "after the end there is nothing more")
        generation.cancel()
        #expect(signals.all.isEmpty, "an ended generation cannot be cancelled")
    }

    @Test func aFullBufferPausesUntilHalfIsRead() async {
        let channel = signals.channel(capacity: 4)
        let generation = Generation(channel: channel)
        for id in 0..<3 { channel.send(token(Int32(id))) }
        #expect(!channel.pauseIfFull())
        channel.send(token(3))
        #expect(channel.pauseIfFull())
        var iterator = generation.makeAsyncIterator()
        _ = await iterator.next()
        #expect(signals.all.isEmpty)
        _ = await iterator.next()
        #expect(signals.all == [.resumed])
        #expect(!channel.pauseIfFull())
        _ = await iterator.next()
        #expect(signals.all == [.resumed])
    }

    @Test func droppingItAbandons() {
        let channel = signals.channel()
        do {
            let generation = Generation(channel: channel)
            withExtendedLifetime(generation) {}
        }
        #expect(signals.all == [.abandoned])
        #expect(!channel.pauseIfFull())
    }

    @Test func cancellingTwiceSignalsOnce() {
        let generation = Generation(channel: signals.channel())
        generation.cancel()
        generation.cancel()
        #expect(signals.all == [.abandoned])
    }

    @Test func cancellingTheReadingTaskAbandons() async {
        let channel = signals.channel()
        let generation = Generation(channel: channel)
        let reader = Task { await ids(generation) }
        reader.cancel()
        while signals.all.isEmpty { await Task.yield() }
        #expect(signals.all == [.abandoned])
        channel.send(end)
        #expect(await reader.value == [nil])
    }

    @Test func placesInTheQueueAreGivenBack() throws {
        let queue = WaitingQueue(capacity: 3)
        try queue.take(2)
        var reservation: QueueReservation? = QueueReservation(queue: queue, count: 2)
        var place = reservation?.take()
        #expect(place != nil)
        reservation = nil
        #expect(queue.takenCount == 1)
        place = nil
        #expect(queue.takenCount == 0)
        #expect(throws: EngineError.self) { try queue.take(4) }
        queue.close()
        #expect(throws: EngineError.shuttingDown) { try queue.take(1) }
        withExtendedLifetime((reservation, place)) {}
    }

    @Test func aClosedMailboxTakesNothing() {
        let mailbox = Mailbox()
        #expect(mailbox.send(.drain))
        #expect(mailbox.send(.stop))
        #expect(mailbox.takeAll(waiting: true).count == 2)
        #expect(mailbox.send(.stop))
        #expect(mailbox.close().count == 1)
        #expect(!mailbox.send(.stop))
        #expect(mailbox.takeAll(waiting: false).isEmpty)
    }
}
