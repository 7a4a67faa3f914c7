import HTTPTypes
import Hummingbird
import Logging
import LorryHTTP
import MetricsTestKit
import NIOConcurrencyHelpers
import NIOCore
import RawTraffic
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

/// A configuration for tests, with changes.
func configured(
    _ change: (inout HTTPServerConfiguration) -> Void = { _ in }
) -> HTTPServerConfiguration {
    var configuration = HTTPServerConfiguration()
    configuration.port = 0
    configuration.drainTimeout = .seconds(5)
    change(&configuration)
    return configuration
}

/// A server on a free loopback port for the length of a test.
struct TestServer: Sendable {
    let port: Int
    let observations: Observations
    let metrics: TestMetrics
    /// Begins the graceful shutdown.
    let shutDown: @Sendable () async -> Void

    static func run(
        _ configuration: HTTPServerConfiguration = configured(),
        _ body: @Sendable (TestServer) async throws -> Void
    ) async throws {
        let observations = Observations()
        let metrics = TestMetrics()
        let (ports, found) = AsyncStream<Int>.makeStream()
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let server = HTTPServer(
            responder: TestResponder(router: router(observations).buildResponder()),
            configuration: configuration, logger: logger, metricsFactory: metrics,
            onReady: { found.yield($0.port ?? 0) })
        let group = ServiceGroup(services: [server], logger: logger)
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                defer { found.finish() }
                try await group.run()
            }
            if let port = await ports.first(where: { _ in true }) {
                let test = TestServer(
                    port: port, observations: observations, metrics: metrics,
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

    /// How often the server has refused for a reason.
    func refusals(_ reason: String) -> Int {
        let counter = try? metrics.expectCounter(
            "lorry_http_refusals_total", [("reason", reason)])
        return Int(counter?.totalValue ?? 0)
    }

    /// Requests under way, by the metrics.
    var streamCount: Double {
        (try? metrics.expectMeter("lorry_http_streams"))?.values.last ?? 0
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
        router.get("drops") { _, _ in
            Response(
                status: .ok,
                body: ResponseBody { writer in
                    for _ in 0..<5000 { try await writer.write(ByteBuffer(string: "data: x\n\n")) }
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

/// The routes, of which `/health` is answered immediately.
private struct TestResponder: ImmediateResponder {
    let router: RouterResponder<LorryRequestContext>

    func respond(
        to request: Request, context: LorryRequestContext
    ) async throws -> Response {
        try await router.respond(to: request, context: context)
    }

    func answersImmediately(_ request: HTTPRequest) -> Bool { request.path == "/health" }
}

struct Broken: Error {}

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
