import NIOConcurrencyHelpers
import NIOCore

/// Tells a connection's handlers that the server is shutting down.
struct DrainEvent: Sendable {}

/// Tells them that the time for running requests is over: what can still be answered is, now.
struct DrainDeadline: Sendable {}

/// The open connections: how many there may be, and how they end.
final class ConnectionRegistry: Sendable {
    /// Whether a connection may stay.
    enum Admission { case admitted, tooMany, tooManyOfAddress }

    private struct State {
        var nextID = 0
        var channels: [Int: any Channel] = [:]
        var countOfAddress: [ClientAddress: Int] = [:]
        var isDraining = false
        var emptied: CheckedContinuation<Void, Never>?
    }

    private let limit: Int
    private let limitPerAddress: Int
    private let state = NIOLockedValueBox(State())

    init(limits: HTTPLimits) {
        limit = limits.connectionCount
        limitPerAddress = limits.connectionCountPerAddress
    }

    /// Registers a connection until it closes, where there are not too many.
    func admit(_ channel: any Channel) -> Admission {
        let address = channel.remoteAddress.flatMap(ClientAddress.init)
        var id = 0
        let admission = state.withLockedValue { state -> Admission in
            guard state.channels.count < limit, !state.isDraining else { return .tooMany }
            if let address {
                let count = state.countOfAddress[address, default: 0]
                guard count < limitPerAddress else { return .tooManyOfAddress }
                state.countOfAddress[address] = count + 1
            }
            state.nextID += 1
            id = state.nextID
            state.channels[id] = channel
            return .admitted
        }
        if admission == .admitted {
            let id = id
            channel.closeFuture.whenComplete { _ in self.remove(id, address) }
        }
        return admission
    }

    private func remove(_ id: Int, _ address: ClientAddress?) {
        let waiter = state.withLockedValue { state in
            state.channels[id] = nil
            if let address, let count = state.countOfAddress[address] {
                state.countOfAddress[address] = count > 1 ? count - 1 : nil
            }
            var waiter: CheckedContinuation<Void, Never>?
            if state.channels.isEmpty { swap(&waiter, &state.emptied) }
            return waiter
        }
        waiter?.resume()
    }

    /// Tells every connection that the time for running requests is over.
    func announceDeadline() {
        for channel in state.withLockedValue({ Array($0.channels.values) }) {
            channel.pipeline.fireUserInboundEventTriggered(DrainDeadline())
        }
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

/// What counts as one client: an IPv4 address, or a network of 64 bits, which is what one customer
/// gets at least (RFC 6177).
package struct ClientAddress: Hashable, Sendable {
    private let text: Substring

    /// nil for sockets without an IP address.
    init?(_ address: SocketAddress) {
        guard let address = address.ipAddress else { return nil }
        self.init(ip: address)
    }

    /// - Parameter ip: as `inet_ntop` writes it (RFC 5952).
    package init(ip: String) {
        let mapped = "::ffff:"
        guard ip.contains(":"), !(ip.hasPrefix(mapped) && ip.contains(".")) else {
            text = ip.hasPrefix(mapped) ? ip.dropFirst(mapped.count) : ip[...]
            return
        }
        let sides = ip.split(separator: "::", omittingEmptySubsequences: false)
            .map { $0.split(separator: ":") }
        var groups = sides.first ?? []
        if sides.count == 2, let right = sides.last {
            groups += Array(repeating: "0", count: max(0, 8 - groups.count - right.count)) + right
        }
        text = groups.prefix(4).joined(separator: ":")[...]
    }
}
