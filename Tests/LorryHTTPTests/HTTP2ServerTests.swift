import Foundation
import HTTPTypes
import LorryHTTP
import NIOCore
import NIOSSL
import NIOTLS
import RawTraffic
import Testing

@Suite struct HTTP2ServerTests {
    @Test func priorKnowledgeServesManyStreams() async throws {
        try await TestServer.run { server in
            let client = try await HTTP2Client.connect(port: server.port)
            let streams = try (0..<100).map { _ in try client.get("/health") }
            try await client.run { _ in streams.allSatisfy(client.isClosed) }
            for stream in streams {
                #expect(client.status(of: stream) == 200)
                #expect(client.body(of: stream) == "HTTP/2")
            }
            try await client.raw.close()
        }
    }

    @Test func h2cUpgradeServesTheRequestAsStreamOne() async throws {
        try await TestServer.run { server in
            let raw = try await RawClient.connect(port: server.port)
            try await raw.send(
                "GET /health HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\n"
                    + "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n")
            let answer = try await raw.read(until: "\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 101 "))
            // SETTINGS, then the answer on stream 1, in which the text stands as it is.
            try await raw.send(
                ByteBuffer(
                    bytes: Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + [
                        0, 0, 0, 4, 0, 0, 0, 0, 0,
                    ]))
            // Frames may follow at once, so it need not be the last.
            #expect(try await raw.read(until: "HTTP/2").contains("HTTP/2"))
            try await raw.close()
        }
    }

    @Test(arguments: [
        "upgrade: h2c\r\nconnection: upgrade\r\nhttp2-settings: AAMAAABk\r\n",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: !\r\n",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\n",
        "upgrade: websocket\r\nconnection: upgrade\r\n",
    ])
    func otherUpgradesAreServedOverHTTP1(fields: String) async throws {
        try await TestServer.run { server in
            let answer = try await RawClient.ask(
                server.port, "GET /health HTTP/1.1\r\nhost: a\r\n\(fields)\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 200 "))
            #expect(answer.hasSuffix("HTTP/1.1"))
        }
    }

    @Test func largeBodiesGoBothWays() async throws {
        try await TestServer.run { server in
            let client = try await HTTP2Client.connect(port: server.port)
            let stream = try client.session.submitRequest(
                HTTPRequest(method: .post, scheme: "http", authority: "a", path: "/echo"),
                endOfStream: false)
            let size = 3_000_000
            client.session.appendBody(ByteBuffer(repeating: 66, count: size), stream: stream)
            client.session.finishBody(stream: stream)
            var echoed = 0
            var seen = 0
            try await client.run { events in
                for case .body(stream, let bytes) in events[seen...] {
                    echoed += bytes.readableBytes
                    client.session.consume(bytes.readableBytes, stream: stream)
                }
                seen = events.count
                return client.isClosed(stream)
            }
            #expect(client.status(of: stream) == 200)
            #expect(echoed == size)
            try await client.raw.close()
        }
    }

    @Test(arguments: ["reset", "close"])
    func clientThatGoesAwayCancelsItsTask(how: String) async throws {
        try await TestServer.run { server in
            let client = try await HTTP2Client.connect(port: server.port)
            let stream = try client.get("/forever")
            try await client.run { _ in server.observations["forever"] == 1 }
            if how == "reset" {
                client.session.reset(stream: stream, code: .cancel)
                try await client.run { _ in server.observations["cancelled"] == 1 }
                // The connection goes on.
                let next = try client.get("/health")
                try await client.run { _ in client.isClosed(next) }
                #expect(client.status(of: next) == 200)
            }
            try await client.raw.close()
            try await server.observations.wait(for: "cancelled")
        }
    }

    @Test func slowStreamSuspendsOnlyItsOwnProducer() async throws {
        try await TestServer.run { server in
            let client = try await HTTP2Client.connect(port: server.port)
            // The client's session never consumes, so this stream's window runs out.
            let slow = try client.get("/flood")
            try await client.run { _ in client.body(of: slow).utf8.count >= 256 * 1024 }
            try await expectSuspension(server)
            #expect(server.observations["flooded"] < 500_000)
            let quick = try client.get("/health")
            try await client.run { _ in client.isClosed(quick) }
            #expect(client.body(of: quick) == "HTTP/2")
            try await client.raw.close()
            try await server.observations.wait(for: "cancelled")
        }
    }

    @Test func stalledStreamsAreGivenUp() async throws {
        try await TestServer.run(configured { $0.limits.responseStallTimeout = .milliseconds(200) })
        {
            server in
            let client = try await HTTP2Client.connect(port: server.port)
            let slow = try client.get("/flood")
            try await client.run { _ in client.isClosed(slow) }
            try await server.observations.wait(for: "cancelled")
            try await client.raw.close()
        }
    }

    @Test func limitsAreAnsweredWithTheirStatus() async throws {
        try await TestServer.run(
            configured {
                $0.limits.bodyByteCount = 10
                $0.limits.headerFieldCount = 20
            }
        ) { server in
            let client = try await HTTP2Client.connect(port: server.port)
            let long = try client.get("/" + String(repeating: "a", count: 9000))
            var post = HTTPRequest(method: .post, scheme: "http", authority: "a", path: "/echo")
            post.headerFields[.contentLength] = "11"
            let announced = try client.session.submitRequest(post, endOfStream: false)
            post.headerFields[.contentLength] = nil
            let sent = try client.session.submitRequest(post, endOfStream: false)
            client.session.appendBody(ByteBuffer(string: "01234567890"), stream: sent)
            var many = HTTPRequest(method: .get, scheme: "http", authority: "a", path: "/")
            for index in 0..<30 {
                let name = try #require(HTTPField.Name("x-\(index)"))
                many.headerFields.append(HTTPField(name: name, value: "y"))
            }
            let fields = try client.session.submitRequest(many, endOfStream: true)
            let streams = [long, announced, sent, fields]
            try await client.run { _ in streams.allSatisfy(client.isClosed) }
            #expect(streams.map(client.status) == [414, 413, 413, 431])
            try await client.raw.close()
        }
    }

    @Test func brokenHandlerResetsTheStream() async throws {
        try await TestServer.run { server in
            let client = try await HTTP2Client.connect(port: server.port)
            let broken = try client.get("/breaks")
            try await client.run { _ in client.isClosed(broken) }
            #expect(
                client.events.contains {
                    if case .closed(broken, 2, byPeer: true) = $0 { true } else { false }
                })
            try await client.raw.close()
        }
    }

    @Test func drainAnnouncesFinishesAndCloses() async throws {
        try await TestServer.run { server in
            let client = try await HTTP2Client.connect(port: server.port)
            let slow = try client.get("/slow")
            try await client.run { _ in server.observations["slow"] == 1 }
            await server.shutDown()
            // Until the server closes.
            try await client.run { _ in false }
            #expect(client.status(of: slow) == 200)
            #expect(client.body(of: slow) == "slow")
        }
    }

    @Test func badPrefaceAndGarbageCloseTheConnection() async throws {
        try await TestServer.run { server in
            _ = try await RawClient.ask(server.port, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
            _ = try await RawClient.ask(
                server.port,
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + String(repeating: "\u{7f}", count: 100))
            let health = try await RawClient.ask(
                server.port, "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            #expect(health.hasPrefix("HTTP/1.1 200 "))
        }
    }
}

@Suite struct TLSTests {
    static let openssl = ["/usr/bin/openssl", "/usr/local/bin/openssl", "/bin/openssl"]
        .first { FileManager.default.isExecutableFile(atPath: $0) }

    private func makeFiles() throws -> (files: TLSFiles, folder: URL) {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("lorry-tls-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let files = TLSFiles(
            certificateChain: folder.appendingPathComponent("cert.pem").path,
            privateKey: folder.appendingPathComponent("key.pem").path)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(Self.openssl))
        process.arguments = [
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", files.privateKey, "-out", files.certificateChain, "-days", "2", "-subj",
            "/CN=localhost",
        ]
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0)
        return (files, folder)
    }

    @Test(.enabled(if: openssl != nil, "the openssl command is missing"))
    func alpnChoosesTheProtocol() async throws {
        let (files, folder) = try makeFiles()
        defer { try? FileManager.default.removeItem(at: folder) }
        try await TestServer.run(configured { $0.tls = files }) { server in
            func connect(_ protocols: [String]) async throws -> RawClient {
                var tls = TLSConfiguration.makeClientConfiguration()
                tls.certificateVerification = .none
                tls.applicationProtocols = protocols
                let context = try NIOSSLContext(configuration: tls)
                return try await RawClient.connect(port: server.port) { channel in
                    try channel.pipeline.syncOperations.addHandler(
                        NIOSSLClientHandler(context: context, serverHostname: nil))
                }
            }
            let http2 = try HTTP2Client(try await connect(["h2"]))
            let stream = try http2.get("/health")
            try await http2.run { _ in http2.isClosed(stream) }
            #expect(http2.body(of: stream) == "HTTP/2")
            try await http2.raw.close()
            for protocols in [["http/1.1"], []] {
                let client = try await connect(protocols)
                try await client.send(
                    "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                #expect(try await client.readToEnd().hasSuffix("HTTP/1.1"))
                try await client.close()
            }
            let forever = try await connect(["http/1.1"])
            try await forever.send("GET /forever HTTP/1.1\r\nhost: a\r\n\r\n")
            try await server.observations.wait(for: "forever")
            try await forever.close()
            try await server.observations.wait(for: "cancelled")
        }
    }

    @Test(.enabled(if: openssl != nil, "the openssl command is missing"))
    func unusableFilesAreNamed() throws {
        let (files, folder) = try makeFiles()
        defer { try? FileManager.default.removeItem(at: folder) }
        _ = try files.makeContext()
        let missing = TLSFiles(
            certificateChain: folder.path + "/none.pem", privateKey: files.privateKey)
        let swapped = TLSFiles(
            certificateChain: files.certificateChain, privateKey: files.certificateChain)
        for (broken, name) in [(missing, "none.pem"), (swapped, "cert.pem")] {
            #expect {
                _ = try broken.makeContext()
            } throws: {
                ($0 as? HTTPServerError)?.message.contains(name) == true
            }
        }
    }
}
