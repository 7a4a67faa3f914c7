import NIOConcurrencyHelpers
import NIOCore

/// The client went away, or its stream was reset.
package struct ConnectionClosed: Error {
    package init() {}
}

/// Suspends a response's producer while more than `capacity` bytes wait for the client.
package final class OutboundGate: Sendable {
    private struct State {
        var pendingByteCount = 0
        /// Bytes taken since `waitingSince`.
        var takenByteCount = 0
        /// When bytes last began to wait, or enough of those that wait were taken.
        var waitingSince = NIODeadline.uptimeNanoseconds(0)
        var isClosed = false
        var nextWaiter = 0
        var waiters: [Int: CheckedContinuation<Void, any Error>] = [:]
    }

    private let capacity: Int
    private let quantum: Int
    private let state = NIOLockedValueBox(State())

    /// - Parameter quantum: bytes that the client must take to count as one that reads.
    package init(capacity: Int, quantum: Int = 1) {
        self.capacity = capacity
        self.quantum = quantum
    }

    package convenience init(_ limits: HTTPLimits) {
        self.init(
            capacity: limits.responseBufferByteCount, quantum: limits.responseStallByteCount)
    }

    /// Bytes that were written and not yet taken by the connection.
    package var pendingByteCount: Int { state.withLockedValue { $0.pendingByteCount } }

    /// How long bytes have waited while fewer than the quantum were taken; nil where none wait.
    package func stallTime(at now: NIODeadline) -> TimeAmount? {
        state.withLockedValue { $0.pendingByteCount > 0 ? now - $0.waitingSince : nil }
    }

    /// Counts bytes that are handed to the connection.
    ///
    /// - Throws: `ConnectionClosed` when nobody will take them.
    package func add(_ byteCount: Int) throws {
        try state.withLockedValue { state in
            guard !state.isClosed else { throw ConnectionClosed() }
            if state.pendingByteCount == 0 {
                state.waitingSince = .now()
                state.takenByteCount = 0
            }
            state.pendingByteCount += byteCount
        }
    }

    /// Returns when the pending bytes are within the capacity.
    ///
    /// - Throws: `ConnectionClosed`, or `CancellationError`.
    package func waitForRoom() async throws {
        let (isFull, waiter) = try state.withLockedValue { state in
            guard !state.isClosed else { throw ConnectionClosed() }
            state.nextWaiter += 1
            return (state.pendingByteCount > capacity, state.nextWaiter)
        }
        guard isFull else { return }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let result: Result<Void, any Error>? = state.withLockedValue { state in
                    if Task.isCancelled { return .failure(CancellationError()) }
                    if state.isClosed { return .failure(ConnectionClosed()) }
                    if state.pendingByteCount <= capacity { return .success(()) }
                    state.waiters[waiter] = continuation
                    return nil
                }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            let continuation = state.withLockedValue { $0.waiters.removeValue(forKey: waiter) }
            continuation?.resume(throwing: CancellationError())
        }
    }

    /// The connection took bytes.
    package func release(_ byteCount: Int) {
        let waiters = state.withLockedValue { state in
            state.pendingByteCount -= byteCount
            state.takenByteCount += byteCount
            if state.takenByteCount >= quantum {
                state.waitingSince = .now()
                state.takenByteCount = 0
            }
            var ready: [Int: CheckedContinuation<Void, any Error>] = [:]
            if state.pendingByteCount <= capacity { swap(&ready, &state.waiters) }
            return ready
        }
        for waiter in waiters.values { waiter.resume() }
    }

    /// The client is gone: every present and later write fails.
    package func close() {
        let waiters = state.withLockedValue { state in
            state.isClosed = true
            defer { state.waiters = [:] }
            return state.waiters
        }
        for waiter in waiters.values { waiter.resume(throwing: ConnectionClosed()) }
    }
}
