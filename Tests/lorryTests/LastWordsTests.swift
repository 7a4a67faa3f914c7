import Foundation
import NIOCore
import RawTraffic
import Synchronization
import Testing

extension EndToEndTests {
    /// What the server's clients are told when it stops.
    struct LastWordsTests {
        /// Too long to end within the drain timeouts of these tests.
        private static let ask = Ask("pirate", .text("Once upon a time"), 480)

        /// - Parameter state: kept by the caller, since the folder goes with it.
        private func server(
            drain: String, _ state: ScratchFolder
        ) async throws -> LorryServer {
            var options = LorryServer.Options()
            options.further = ["--drain-timeout", drain, "--step-target", "1ms"]
            return try await LorryServer.start(options, state: state)
        }

        /// Waits until as many requests run over HTTP.
        private func waitForStreams(_ count: Double, _ client: Client) async throws {
            while try await client.metrics().value("lorry_http_streams") ?? 0 < count + 1 {
                try await Task.sleep(for: .milliseconds(2))
            }
        }

        @Test func streamsThatTakeTooLongEndWithAnError() async throws {
            let state = try ScratchFolder()
            defer { withExtendedLifetime(state) {} }
            let server = try await server(drain: "1ms", state)
            let events = EventLog()
            try await server.client.stream(Self.ask) { event in
                if events.add(event) == 1 { server.process.send(SIGTERM) }
                return true
            }
            let last = events.all.suffix(2)
            #expect(last.first?.name == "error")
            #expect(last.first?.data.contains("shutting down") == true, "\(last)")
            #expect(last.last?.data == "[DONE]")
            #expect(await server.process.wait() == .exit(0))
        }

        @Test func answersThatTakeTooLongAre503() async throws {
            let state = try ScratchFolder()
            defer { withExtendedLifetime(state) {} }
            let server = try await server(drain: "1ms", state)
            async let reply = server.client.post("/v1/completions", Self.ask)
            try await waitForStreams(1, server.client)
            server.process.send(SIGTERM)
            #expect(try await reply.status == 503)
            #expect(try await reply.header("retry-after") != nil)
            #expect(await server.process.wait() == .exit(0))
        }

        @Test func uploadsThatTakeTooLongAre503AndLeaveNothing() async throws {
            let state = try ScratchFolder()
            let server = try await server(drain: "200ms", state)
            let raw = try await RawClient.connect(port: server.client.port)
            try await raw.send(
                "PUT /admin/adapters/half HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-tar\r\n"
                    // Less than an archive's first header, which would be refused at once.
                    + "transfer-encoding: chunked\r\n\r\n64\r\n"
                    + String(repeating: "x", count: 100) + "\r\n")
            try await waitForStreams(1, server.client)
            server.process.send(SIGTERM)
            let answer = try await raw.readToEnd()
            #expect(
                answer.hasPrefix("HTTP/1.1 503 ") || answer.hasPrefix("HTTP/1.1 400 "), "\(answer)")
            #expect(await server.process.wait() == .exit(0))
            try await raw.close()
            var options = LorryServer.Options()
            options.state = state
            try await LorryServer.run(options) { server in
                let reply = try await server.client.get("/admin/adapters/half")
                #expect(reply.status == 404)
            }
        }

        @Test func oldConnectionsGetNoNewRequests() async throws {
            let state = try ScratchFolder()
            defer { withExtendedLifetime(state) {} }
            let server = try await server(drain: "30s", state)
            let port = server.client.port
            let idle = try await RawClient.connect(port: port)
            try await idle.send("GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            _ = try await idle.read(until: "\r\n\r\n")
            // One has sent half a head, the other has a stream open.
            let half = try await RawClient.connect(port: port)
            try await half.send("GET /health HTTP/1.1\r\n")
            let http2 = try await RawClient.connect(port: port)
            let body = Array(try Wire.encoder().encode(Self.ask))
            let post =
                Frame.headers(
                    Block.post("/v1/completions") + Block.field("content-type", "application/json"),
                    stream: 1, flags: Frame.endHeaders)
                + Frame.data(body, stream: 1, flags: Frame.endStream)
            try await http2.send(ByteBuffer(bytes: Frame.opening + post))
            try await waitForStreams(1, server.client)
            server.process.send(SIGTERM)
            #expect(try await idle.readToEnd().hasPrefix("HTTP/1.1 200 "))
            while Frame.goAwayCode(in: http2.bytes) == nil, !http2.isClosed {
                try await Task.sleep(for: .milliseconds(1))
            }
            #expect(Frame.goAwayCode(in: http2.bytes) == 0)
            try? await http2.send(
                ByteBuffer(bytes: Frame.headers(Block.get("/health"), stream: 3)))
            try await half.send("host: a\r\n\r\n")
            let refused = try await half.readToEnd().lowercased()
            #expect(refused.hasPrefix("http/1.1 503 "))
            #expect(refused.contains("retry-after: ") && refused.contains("connection: close"))
            _ = try await http2.readToEnd()
            let frames = Frame.parse(http2.bytes)
            // The running request was answered whole: its head, its body to the end.
            #expect(frames.contains { $0.type == 0 && $0.flags & Frame.endStream != 0 })
            #expect(frames.contains { $0.type == 3 && $0.payload == [0, 0, 0, 7] })
            #expect(await server.process.wait() == .exit(0))
            for client in [idle, half, http2] { try await client.close() }
        }

        @Test(arguments: [(SIGTERM, Int32(143)), (SIGINT, Int32(130))])
        func aSecondSignalEndsAtOnce(signal: Int32, status: Int32) async throws {
            let state = try ScratchFolder()
            let server = try await server(drain: "600s", state)
            let archive = try AdapterArchive.tar(
                PackageFiles.talesAdapters.appending(path: "shout"), alpha: 4)
            #expect(try await server.client.put("kept", archive).status == 201)
            // A request that never ends keeps the first signal waiting.
            let raw = try await RawClient.connect(port: server.client.port)
            try await raw.send(
                "PUT /admin/adapters/half HTTP/1.1\r\nhost: a\r\n"
                    + "content-type: application/x-tar\r\ncontent-length: 9999999\r\n\r\nx")
            try await waitForStreams(1, server.client)
            server.process.send(signal)
            while !server.process.standardError.contains("draining") {
                try await Task.sleep(for: .milliseconds(2))
            }
            #expect(server.process.isRunning)
            server.process.send(signal)
            #expect(await server.process.wait() == .exit(status))
            try await raw.close()
            var options = LorryServer.Options()
            options.state = state
            try await LorryServer.run(options) { server in
                let answer = try await server.client.complete(Ask("kept", .text("Hello"), 3))
                #expect(try answer.choice().tokenIds?.count == 3)
                #expect(try await server.client.get("/admin/adapters/half").status == 404)
                let events = try await server.client.get("/admin/events").text
                #expect(events.contains("kept"))
            }
        }
    }
}

/// The events of a stream, in order.
private final class EventLog: Sendable {
    private let events = Mutex<[ServerEvent]>([])
    var all: [ServerEvent] { events.withLock { $0 } }

    /// - Returns: how many there are now.
    func add(_ event: ServerEvent) -> Int {
        events.withLock {
            $0.append(event)
            return $0.count
        }
    }
}
