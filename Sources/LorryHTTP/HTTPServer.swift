import Hummingbird
import Logging
import Metrics
import NIOCore
import NIOPosix
import NIOSSL
import ServiceLifecycle

/// Serves a responder on one port over HTTP/1.1 and HTTP/2 (prior knowledge, `Upgrade: h2c`, or
/// TLS with ALPN).
///
/// Each request runs in a task of its own, which is cancelled when the client goes away. Writing a
/// response body suspends while the client does not take it, and a request body is let in only as
/// fast as the handler reads it.
public final class HTTPServer<Responder: HTTPResponder>: Service
where Responder.Context: RequestContext, Responder.Context.Source == HTTPRequestSource {
    private let responder: Responder
    private let configuration: HTTPServerConfiguration
    private let eventLoopGroup: any EventLoopGroup
    private let metrics: HTTPMetrics
    private let logger: Logger
    private let onReady: @Sendable (SocketAddress) async -> Void

    /// - Parameters:
    ///   - responder: usually `Router.buildResponder()`.
    ///   - onReady: called once with the bound address, when connections are accepted.
    public init(
        responder: Responder, configuration: HTTPServerConfiguration, logger: Logger,
        eventLoopGroup: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
        metricsFactory: any MetricsFactory = MetricsSystem.factory,
        onReady: @escaping @Sendable (SocketAddress) async -> Void = { _ in }
    ) {
        self.responder = responder
        self.configuration = configuration
        self.eventLoopGroup = eventLoopGroup
        self.logger = logger
        self.onReady = onReady
        metrics = HTTPMetrics(factory: metricsFactory)
    }

    /// Serves until graceful shutdown, then lets running requests end for up to
    /// `drainTimeout`. Cancelling the task ends everything at once.
    ///
    /// - Throws: `HTTPServerError` when the address or the TLS files cannot be used.
    public func run() async throws {
        let tls = try configuration.tls?.makeContext()
        let registry = ConnectionRegistry(limits: configuration.limits)
        let listener = try await bind(tls: tls, registry: registry)
        if let address = listener.localAddress {
            logger.info("listening", metadata: ["address": "\(address)"])
            await onReady(address)
        }
        let isGraceful = await waitForShutdown()
        try? await listener.close()
        if isGraceful { await drain(registry) }
        let closed = registry.closeAll()
        if closed > 0 {
            logger.warning("connections closed", metadata: ["count": "\(closed)"])
        }
        await registry.waitUntilEmpty()
    }

    /// For the answers that tell of the end to reach their clients.
    private static var lastWordTime: Duration { .seconds(2) }

    private func waitForShutdown() async -> Bool {
        do {
            try await gracefulShutdown()
            return true
        } catch {
            return false
        }
    }

    private func drain(_ registry: ConnectionRegistry) async {
        logger.info("draining", metadata: ["timeout": "\(configuration.drainTimeout)"])
        registry.drain()
        let (timeout, endRequests) = (configuration.drainTimeout, configuration.onDrainTimeout)
        let timer = Task { [logger] in
            try await Task.sleep(for: timeout)
            logger.warning("time for running requests is over")
            registry.announceDeadline()
            // Not waited for: connections end in time even where the requests do not.
            Task { await endRequests() }
            try await Task.sleep(for: Self.lastWordTime)
            _ = registry.closeAll()
        }
        await withTaskCancellationHandler {
            await registry.waitUntilEmpty()
        } onCancel: {
            _ = registry.closeAll()
        }
        timer.cancel()
    }

    private func bind(
        tls: NIOSSLContext?, registry: ConnectionRegistry
    ) async throws -> any Channel {
        let settings = ConnectionSettings(
            limits: configuration.limits, bodyLimit: configuration.bodyLimit,
            service: RequestService(
                responder: responder, logger: logger, serverName: configuration.serverName),
            metrics: metrics, logger: logger)
        let bootstrap = ServerBootstrap(group: eventLoopGroup)
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                .writeBufferWaterMark, value: .init(low: 32 * 1024, high: 64 * 1024)
            )
            // TLS ends a connection as a whole.
            .childChannelOption(.allowRemoteHalfClosure, value: tls == nil)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        Doorkeeper(registry: registry, settings: settings, tls: tls))
                }
            }
        do {
            return try await bootstrap.bind(
                host: configuration.host, port: configuration.port
            ).get()
        } catch {
            throw HTTPServerError(
                message: "cannot listen on \(configuration.host):\(configuration.port): \(error)")
        }
    }
}

/// Lets a connection in, or not, once it is known where it comes from, and gives its place to the
/// handlers that serve it.
private final class Doorkeeper: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private let registry: ConnectionRegistry
    private let settings: ConnectionSettings
    private let tls: NIOSSLContext?

    init(registry: ConnectionRegistry, settings: ConnectionSettings, tls: NIOSSLContext?) {
        self.registry = registry
        self.settings = settings
        self.tls = tls
    }

    func channelActive(context: ChannelHandlerContext) {
        do {
            try addHandlers(context)
            context.fireChannelActive()
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
        } catch {
            context.close(promise: nil)
        }
    }

    private func addHandlers(_ context: ChannelHandlerContext) throws {
        let pipeline = context.pipeline.syncOperations
        let admission = registry.admit(context.channel)
        guard admission == .admitted else {
            settings.metrics.refused(
                admission == .tooMany ? .connections : .connectionsPerAddress)
            return try pipeline.addHandler(ConnectionRefusal(isSecure: tls != nil))
        }
        if let tls { try pipeline.addHandler(NIOSSLServerHandler(context: tls)) }
        try pipeline.addHandler(ProtocolChooser(settings: settings, isSecure: tls != nil))
    }
}

/// Tells a client that the server has no room for its connection, and closes it.
final class ConnectionRefusal: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let isSecure: Bool

    init(isSecure: Bool) {
        self.isSecure = isSecure
    }

    func channelActive(context: ChannelHandlerContext) {
        // A TLS client could not read an answer before the handshake.
        guard !isSecure else { return context.close(promise: nil) }
        let body = Refusals.body(.serviceUnavailable, "The server has too many connections")
        var answer = ByteBuffer(
            string: """
                HTTP/1.1 503 Service Unavailable\r
                content-type: application/json\r
                content-length: \(body.readableBytes)\r
                retry-after: 1\r
                connection: close\r
                \r

                """)
        answer.writeImmutableBuffer(body)
        context.writeAndFlush(wrapOutboundOut(answer), promise: nil)
        context.close(mode: .output, promise: nil)
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .milliseconds(500)) {
            bound.value.close(promise: nil)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case ChannelEvent.inputClosed = event { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }
}
