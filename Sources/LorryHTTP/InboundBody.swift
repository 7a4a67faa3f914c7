import Hummingbird
import NIOConcurrencyHelpers
import NIOCore

/// A request's body on its way from the connection to the handler.
///
/// The connection pushes what the client sends and gives the client new window only when the
/// handler has taken bytes (`onConsume`). One consumer at a time.
package final class InboundBody: AsyncSequence, Sendable {
    package typealias Element = ByteBuffer

    private typealias Waiter = CheckedContinuation<ByteBuffer?, any Error>

    private enum End {
        case complete
        case failed(any Error)
    }

    private struct State {
        var chunks = CircularBuffer<ByteBuffer>()
        var bufferedByteCount = 0
        var receivedByteCount = 0
        var end: End?
        var wasAsked = false
        var waiter: Waiter?

        /// Small pieces are put together: each may keep alive the buffer of a whole read.
        mutating func append(_ bytes: ByteBuffer) {
            guard bytes.readableBytes < 1024, let last = chunks.indices.last,
                chunks[last].readableBytes < 16 * 1024
            else { return chunks.append(bytes) }
            chunks[last].writeImmutableBuffer(bytes)
        }
    }

    private let state = NIOLockedValueBox(State())
    private let byteLimit: Int
    private let onFirstAsk: @Sendable () -> Void
    private let onConsume: @Sendable (Int) -> Void

    /// - Parameters:
    ///   - byteLimit: of the whole body; more makes the consumer throw `HTTPError` 413.
    ///   - onFirstAsk: called when the consumer first asks for bytes.
    ///   - onConsume: called with the size of each chunk that the consumer took.
    package init(
        byteLimit: Int, onFirstAsk: @escaping @Sendable () -> Void = {},
        onConsume: @escaping @Sendable (Int) -> Void = { _ in }
    ) {
        self.byteLimit = byteLimit
        self.onFirstAsk = onFirstAsk
        self.onConsume = onConsume
    }

    /// Bytes that arrived and that the consumer has not taken.
    package var bufferedByteCount: Int { state.withLockedValue { $0.bufferedByteCount } }
    /// Whether the consumer has asked for bytes and all that came were taken.
    package var isHungry: Bool { state.withLockedValue { $0.waiter != nil } }

    /// - Returns: false when the body is over its limit; the consumer gets the error.
    package func push(_ bytes: ByteBuffer) -> Bool {
        let (waiter, fits) = state.withLockedValue { state in
            guard state.end == nil else { return (nil as Waiter?, true) }
            state.receivedByteCount += bytes.readableBytes
            guard state.receivedByteCount <= byteLimit else {
                state.end = .failed(Self.tooLarge(limit: byteLimit))
                state.chunks.removeAll()
                state.bufferedByteCount = 0
                defer { state.waiter = nil }
                return (state.waiter, false)
            }
            defer { state.waiter = nil }
            if state.waiter == nil {
                state.append(bytes)
                state.bufferedByteCount += bytes.readableBytes
            }
            return (state.waiter, true)
        }
        if !fits {
            waiter?.resume(throwing: Self.tooLarge(limit: byteLimit))
        } else if let waiter {
            onConsume(bytes.readableBytes)
            waiter.resume(returning: bytes)
        }
        return fits
    }

    package func finish() { end(.complete) }
    package func fail(_ error: any Error) { end(.failed(error)) }

    static func tooLarge(limit: Int) -> HTTPError {
        HTTPError(.contentTooLarge, message: "The request body is over its limit of \(limit) bytes")
    }

    private func end(_ end: End) {
        let waiter = state.withLockedValue { state in
            guard state.end == nil else { return nil as Waiter? }
            state.end = end
            defer { state.waiter = nil }
            return state.waiter
        }
        switch end {
        case .complete: waiter?.resume(returning: nil)
        case .failed(let error): waiter?.resume(throwing: error)
        }
    }

    package struct AsyncIterator: AsyncIteratorProtocol, Sendable {
        fileprivate let body: InboundBody
        package func next() async throws -> ByteBuffer? { try await body.next() }
    }

    package func makeAsyncIterator() -> AsyncIterator { AsyncIterator(body: self) }

    private func next() async throws -> ByteBuffer? {
        let isFirst = state.withLockedValue { state in
            defer { state.wasAsked = true }
            return !state.wasAsked
        }
        if isFirst { onFirstAsk() }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                wait(continuation)
            }
        } onCancel: {
            let waiter = state.withLockedValue { state in
                defer { state.waiter = nil }
                return state.waiter
            }
            waiter?.resume(throwing: CancellationError())
        }
    }

    private func wait(_ continuation: CheckedContinuation<ByteBuffer?, any Error>) {
        let result: Result<ByteBuffer?, any Error>? = state.withLockedValue { state in
            if let chunk = state.chunks.popFirst() {
                state.bufferedByteCount -= chunk.readableBytes
                return .success(chunk)
            }
            switch state.end {
            case .complete: return .success(nil)
            case .failed(let error): return .failure(error)
            case nil: break
            }
            if Task.isCancelled { return .failure(CancellationError()) }
            guard state.waiter == nil else {
                return .failure(HTTPError(.internalServerError, message: "body read twice at once"))
            }
            state.waiter = continuation
            return nil
        }
        if case .success(let chunk?) = result { onConsume(chunk.readableBytes) }
        if let result { continuation.resume(with: result) }
    }
}
