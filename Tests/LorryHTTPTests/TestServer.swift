import HTTPTypes
import Hummingbird
import Logging
import LorryHTTP
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import ServiceLifecycle

/// What the routes of a ``TestServer`` saw.
final class Observations: Sendable {
    private let state = NIOLockedValueBox<[String: Int]>([:])
    func add(_ name: String, _ count: Int = 1) {
        state.withLockedValue { $0[name, default: 0] += count }
    }
    subscript(name: String) -> Int { state.withLockedValue { $0[name] ?? 0 } }

    /// Returns when something was seen at least so often; the test runner ends a test that hangs.
    func wait(for name: String, count: Int = 1) async throws {
        while self[name] < count { try await Task.sleep(for: .milliseconds(2)) }
    }
}

/// A server on a free loopback port for the length of a test.
struct TestServer: Sendable {
    let port: Int
    let observations: Observations
    /// Begins the graceful shutdown.
    let shutDown: @Sendable () async -> Void

    static func run(
        _ configure: (inout HTTPServerConfiguration) -> Void = { _ in },
        _ body: @Sendable (TestServer) async throws -> Void
    ) async throws {
        var configuration = HTTPServerConfiguration()
        configuration.port = 0
        configuration.drainTimeout = .seconds(5)
        configure(&configuration)
        let observations = Observations()
        let (ports, found) = AsyncStream<Int>.makeStream()
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let server = HTTPServer(
            responder: router(observations).buildResponder(), configuration: configuration,
            logger: logger, onReady: { found.yield($0.port ?? 0) })
        let group = ServiceGroup(services: [server], logger: logger)
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                defer { found.finish() }
                try await group.run()
            }
            if let port = await ports.first(where: { _ in true }) {
                let test = TestServer(
                    port: port, observations: observations,
                    shutDown: { await group.triggerGracefulShutdown() })
                do {
                    try await body(test)
                } catch {
                    await group.triggerGracefulShutdown()
                    throw error
                }
                await group.triggerGracefulShutdown()
            }
            try await tasks.waitForAll()
        }
    }

    private static func router(_ seen: Observations) -> Router<LorryRequestContext> {
        let router = Router(
            context: LorryRequestContext.self, options: .autoGenerateHeadEndpoints)
        router.get("health") { _, context in context.protocolVersion.rawValue }
        router.post("echo") { request, _ in
            let body = try await request.body.collect(upTo: .max)
            seen.add("echo")
            return Response(status: .ok, body: ResponseBody(byteBuffer: body))
        }
        router.post("ignore") { _, _ in "ignored" }
        router.get("slow") { _, _ in
            seen.add("slow")
            try? await Task.sleep(for: .milliseconds(300))
            return "slow"
        }
        router.get("forever") { _, _ -> String in
            seen.add("forever")
            do {
                try await Task.sleep(for: .seconds(3600))
            } catch {
                seen.add("cancelled")
                throw error
            }
            return "never"
        }
        router.get("flood") { _, _ in
            Response(
                status: .ok,
                body: ResponseBody { writer in
                    do {
                        for _ in 0..<100_000 {
                            try await writer.write(ByteBuffer(repeating: 65, count: 1000))
                            seen.add("flooded", 1000)
                        }
                    } catch {
                        seen.add("cancelled")
                        throw error
                    }
                    try await writer.finish(nil)
                })
        }
        router.get("events") { _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/event-stream"],
                body: ResponseBody { writer in
                    for index in 0..<3 {
                        try await writer.write(ByteBuffer(string: "data: \(index)\n\n"))
                    }
                    try await writer.finish(nil)
                })
        }
        router.get("breaks") { _, _ in
            Response(
                status: .ok,
                body: ResponseBody { writer in
                    try await writer.write(ByteBuffer(string: "begun"))
                    throw Broken()
                })
        }
        router.get("throws") { _, _ -> String in throw Broken() }
        return router
    }
}

struct Broken: Error {}

/// A TCP client that sends and reads bytes as they are.
final class RawClient: Sendable {
    private let channel: any Channel
    private let received = NIOLockedValueBox<(bytes: [UInt8], isClosed: Bool)>(([], false))

    private init(_ channel: any Channel) { self.channel = channel }

    /// - Parameter readsAtOnce: false leaves everything in the socket until `startReading`.
    static func connect(
        port: Int, readsAtOnce: Bool = true,
        prepare: @escaping @Sendable (any Channel) throws -> Void = { _ in }
    ) async throws -> RawClient {
        let client = NIOLockedValueBox<RawClient?>(nil)
        _ = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.autoRead, value: readsAtOnce)
            .channelOption(.socketOption(.so_rcvbuf), value: readsAtOnce ? 1 << 20 : 8192)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let made = RawClient(channel)
                    client.withLockedValue { $0 = made }
                    try prepare(channel)
                    try channel.pipeline.syncOperations.addHandler(Collector(made))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        guard let client = client.withLockedValue({ $0 }) else { throw Broken() }
        return client
    }

    private final class Collector: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let client: RawClient
        init(_ client: RawClient) { self.client = client }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let bytes = unwrapInboundIn(data).readableBytesView
            client.received.withLockedValue { $0.bytes += bytes }
        }
        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case ChannelEvent.inputClosed = event { closed() }
            context.fireUserInboundEventTriggered(event)
        }
        func channelInactive(context: ChannelHandlerContext) { closed() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            closed()
            context.close(promise: nil)
        }
        private func closed() { client.received.withLockedValue { $0.isClosed = true } }
    }

    func send(_ text: String) async throws { try await send(ByteBuffer(string: text)) }
    func send(_ bytes: ByteBuffer) async throws { try await channel.writeAndFlush(bytes) }
    func closeOutput() async throws { try await channel.close(mode: .output) }
    func close() async throws { try? await channel.close() }
    func startReading() async throws { try await channel.setOption(.autoRead, value: true).get() }

    var isClosed: Bool { received.withLockedValue { $0.isClosed } }
    var text: String {
        String(decoding: received.withLockedValue { $0.bytes }, as: UTF8.self)
    }

    /// Takes what has been received.
    func take() -> ByteBuffer {
        received.withLockedValue { state in
            defer { state.bytes = [] }
            return ByteBuffer(bytes: state.bytes)
        }
    }

    /// What was received once it holds `text`, or once the server closed.
    func read(until text: String) async throws -> String {
        while !self.text.contains(text), !isClosed {
            try await Task.sleep(for: .milliseconds(1))
        }
        return self.text
    }

    func readToEnd() async throws -> String {
        while !isClosed { try await Task.sleep(for: .milliseconds(1)) }
        return text
    }

    /// One exchange on a connection of its own, until the server closes.
    static func ask(_ port: Int, _ request: String) async throws -> String {
        let client = try await connect(port: port)
        try await client.send(request)
        let answer = try await client.readToEnd()
        try await client.close()
        return answer
    }
}

/// An HTTP/2 client made of a raw client and a session.
final class HTTP2Client {
    let raw: RawClient
    let session: HTTP2Session
    private(set) var events: [HTTP2Event] = []

    init(_ raw: RawClient, skipping prefix: Int = 0) throws {
        self.raw = raw
        session = try HTTP2Session(role: .client, options: HTTP2Options(), now: .now())
    }

    static func connect(port: Int) async throws -> HTTP2Client {
        try HTTP2Client(try await RawClient.connect(port: port))
    }

    /// Carries bytes both ways until `isDone` or the server closed.
    func run(until isDone: ([HTTP2Event]) -> Bool) async throws {
        while !isDone(events) {
            var buffer = ByteBuffer()
            try session.takeOutput(into: &buffer, limit: .max)
            if buffer.readableBytes > 0 { try await raw.send(buffer) }
            let input = raw.take()
            if input.readableBytes > 0 {
                try session.receive(input, now: .now())
                events += session.takeEvents()
            } else {
                if raw.isClosed { break }
                try await Task.sleep(for: .milliseconds(1))
            }
        }
        var buffer = ByteBuffer()
        try session.takeOutput(into: &buffer, limit: .max)
        if buffer.readableBytes > 0 { try? await raw.send(buffer) }
    }

    func get(_ path: String) throws -> Int32 {
        try session.submitRequest(
            HTTPRequest(method: .get, scheme: "http", authority: "a", path: path),
            endOfStream: true)
    }

    func status(of stream: Int32) -> Int? {
        for case .head(stream, let head, _) in events where head.status != 100 {
            return head.status
        }
        return nil
    }

    func body(of stream: Int32) -> String {
        events.reduce("") { text, event in
            if case .body(stream, let bytes) = event { text + String(buffer: bytes) } else { text }
        }
    }

    func isClosed(_ stream: Int32) -> Bool {
        events.contains { if case .closed(stream, _, _) = $0 { true } else { false } }
    }
}
