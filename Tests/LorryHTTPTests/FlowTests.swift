import Hummingbird
import LorryHTTP
import NIOConcurrencyHelpers
import NIOCore
import Testing

@Suite struct OutboundGateTests {
    /// A long silence before the first bytes is no fault of the client's.
    @Test func onlyWaitingBytesStall() throws {
        let gate = OutboundGate(capacity: 10)
        let later = NIODeadline.now() + .hours(1)
        #expect(gate.stallTime(at: later) == nil)
        let before = NIODeadline.now()
        try gate.add(4)
        let since = later - (try #require(gate.stallTime(at: later)))
        #expect(since >= before && since <= .now())
        gate.release(2)
        let after = later - (try #require(gate.stallTime(at: later)))
        #expect(after >= since)
        gate.release(2)
        #expect(gate.stallTime(at: later) == nil)
    }

    @Test func suspendsOverCapacityUntilReleased() async throws {
        let gate = OutboundGate(capacity: 10)
        try gate.add(10)
        try await gate.waitForRoom()
        try gate.add(5)
        let isThrough = NIOLockedValueBox(false)
        let writer = Task {
            try await gate.waitForRoom()
            isThrough.withLockedValue { $0 = true }
        }
        try await Task.sleep(for: .milliseconds(20))
        #expect(!isThrough.withLockedValue { $0 })
        gate.release(5)
        try await writer.value
        #expect(gate.pendingByteCount == 10)
    }

    @Test func closingFailsWaitersAndLaterWrites() async throws {
        let gate = OutboundGate(capacity: 1)
        try gate.add(2)
        let writer = Task { try await gate.waitForRoom() }
        try await Task.sleep(for: .milliseconds(10))
        gate.close()
        await #expect(throws: ConnectionClosed.self) { try await writer.value }
        #expect(throws: ConnectionClosed.self) { try gate.add(1) }
    }

    @Test func cancelledWriterStopsWaiting() async throws {
        let gate = OutboundGate(capacity: 1)
        try gate.add(2)
        let writer = Task { try await gate.waitForRoom() }
        try await Task.sleep(for: .milliseconds(10))
        writer.cancel()
        await #expect(throws: CancellationError.self) { try await writer.value }
    }
}

@Suite struct InboundBodyTests {
    @Test func deliversInOrderAndReportsConsumption() async throws {
        let consumed = NIOLockedValueBox<[Int]>([])
        let asks = NIOLockedValueBox(0)
        let body = InboundBody(
            byteLimit: 10_000, onFirstAsk: { asks.withLockedValue { $0 += 1 } },
            onConsume: { count in consumed.withLockedValue { $0.append(count) } })
        #expect(body.push(ByteBuffer(repeating: 97, count: 3000)))
        #expect(body.push(ByteBuffer(repeating: 98, count: 2000)))
        // Small pieces join the last one.
        #expect(body.push(ByteBuffer(string: "c")))
        #expect(body.bufferedByteCount == 5001)
        #expect(consumed.withLockedValue { $0 }.isEmpty)
        body.finish()
        var text = ""
        for try await chunk in body { text += String(buffer: chunk) }
        #expect(text.count == 5001 && text.hasSuffix("bbc"))
        #expect(consumed.withLockedValue { $0 } == [3000, 2001])
        #expect(asks.withLockedValue { $0 } == 1)
    }

    @Test func tooManyBytesThrow413() async throws {
        let body = InboundBody(byteLimit: 4)
        #expect(body.push(ByteBuffer(string: "abc")))
        #expect(!body.push(ByteBuffer(string: "de")))
        await #expect {
            for try await _ in body {}
        } throws: {
            ($0 as? HTTPError)?.status == .contentTooLarge
        }
    }

    @Test func cancelledReaderStops() async throws {
        let body = InboundBody(byteLimit: 4)
        let reader = Task { for try await _ in body {} }
        while !body.isHungry { await Task.yield() }
        reader.cancel()
        await #expect(throws: CancellationError.self) { try await reader.value }
    }

    @Test func failureReachesAWaitingReader() async throws {
        let body = InboundBody(byteLimit: 4)
        let reader = Task { for try await _ in body {} }
        while !body.isHungry { await Task.yield() }
        body.fail(ConnectionClosed())
        await #expect(throws: ConnectionClosed.self) { try await reader.value }
    }
}
