import NIOConcurrencyHelpers
import NIOCore

/// Tells a connection's handlers that the server is shutting down.
struct DrainEvent: Sendable {}

/// The open connections: how many there may be, and how they end.
final class ConnectionRegistry: Sendable {
    private struct State {
        var nextID = 0
        var channels: [Int: any Channel] = [:]
        var isDraining = false
        var emptied: CheckedContinuation<Void, Never>?
    }

    private let limit: Int
    private let state = NIOLockedValueBox(State())

    init(limit: Int) {
        self.limit = limit
    }

    /// Registers a connection until it closes. - Returns: false when there are too many.
    func admit(_ channel: any Channel) -> Bool {
        let id = state.withLockedValue { state -> Int? in
            guard state.channels.count < limit, !state.isDraining else { return nil }
            state.nextID += 1
            state.channels[state.nextID] = channel
            return state.nextID
        }
        guard let id else { return false }
        channel.closeFuture.whenComplete { _ in self.remove(id) }
        return true
    }

    private func remove(_ id: Int) {
        let waiter = state.withLockedValue { state in
            state.channels[id] = nil
            var waiter: CheckedContinuation<Void, Never>?
            if state.channels.isEmpty { swap(&waiter, &state.emptied) }
            return waiter
        }
        waiter?.resume()
    }

    /// Asks every connection to end after its running requests, and admits no more.
    func drain() {
        let channels = state.withLockedValue { state in
            state.isDraining = true
            return Array(state.channels.values)
        }
        for channel in channels {
            channel.pipeline.fireUserInboundEventTriggered(DrainEvent())
        }
    }

    /// Closes every connection now. - Returns: how many there were.
    func closeAll() -> Int {
        let channels = state.withLockedValue { Array($0.channels.values) }
        for channel in channels { channel.close(promise: nil) }
        return channels.count
    }

    /// Returns when no connection is left. For one caller at a time.
    func waitUntilEmpty() async {
        await withCheckedContinuation { continuation in
            let isEmpty = state.withLockedValue { state in
                if !state.channels.isEmpty { state.emptied = continuation }
                return state.channels.isEmpty
            }
            if isEmpty { continuation.resume() }
        }
    }
}
