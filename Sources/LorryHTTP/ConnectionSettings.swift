import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// What all connections of a server share.
struct ConnectionSettings: Sendable {
    let limits: HTTPLimits
    let bodyLimit: @Sendable (HTTPRequest) -> Int?
    let service: RequestService
    let metrics: HTTPMetrics
    let logger: Logger

    func bodyLimit(of request: HTTPRequest) -> Int {
        bodyLimit(request) ?? limits.bodyByteCount
    }

    /// How often a connection looks at its deadlines: often enough to keep the shortest.
    var tick: TimeAmount {
        let shortest = min(
            min(limits.headerTimeout, limits.idleTimeout),
            min(limits.bodyIdleTimeout, limits.responseStallTimeout))
        return min(
            .seconds(1), max(.milliseconds(10), .nanoseconds(TimeAmount(shortest).nanoseconds / 4)))
    }

    /// Starts a request's task, and counts it while it runs.
    func start(_ exchange: Exchange, peer: ConnectionPeer) -> Task<Void, Never> {
        metrics.streamOpened()
        return service.start(exchange, peer: peer, onEnd: metrics.streamClosed)
    }
}

/// A request that a connection is working on.
struct RunningRequest {
    let exchange: Exchange
    let task: Task<Void, Never>
    var pace = BodyPace()
    var expectsContinue = false
    /// The client has sent all of it.
    var isReceived: Bool
    /// HTTP/2: the answer, while the small rest of the body is waited for (see `HTTP2Handler.hold`).
    var held: [ResponseCommand]?

    /// Ends the request because its client is gone.
    func abandon() {
        exchange.disconnect()
        task.cancel()
    }

    /// Ends the wait for a body that shutdown leaves no time for.
    func failUnfinishedBody() {
        guard !isReceived else { return }
        exchange.body?.fail(
            HTTPError(.serviceUnavailable, message: "The server is shutting down"))
    }

    /// Whether the client has taken next to nothing of what waits for it for too long.
    func isStalled(at now: NIODeadline, limits: HTTPLimits) -> Bool {
        guard let stall = exchange.gate.stallTime(at: now) else { return false }
        return stall > TimeAmount(limits.responseStallTimeout)
    }
}
