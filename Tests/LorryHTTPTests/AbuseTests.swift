import Foundation
import LorryHTTP
import NIOCore
import RawTraffic
import Testing

extension Abuse: CustomTestStringConvertible {
    public var testDescription: String { name }
}

/// Each abuse against a server in this process: cut off, with the right code or status, counted
/// under its reason, and soon.
@Suite struct AbuseTests {
    /// Far above what any of them takes.
    private static let byteLimit = 64 << 20

    @Test(arguments: Abuse.all(post: "/echo", large: "/flood"))
    func offenderIsCutOff(abuse: Abuse) async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            try await client.send(ByteBuffer(bytes: abuse.opening))
            if abuse.needsAnswer { try await client.waitForBytes() }
            var sent = 0
            var number = 0
            while !client.isClosed, sent < Self.byteLimit {
                var bytes = ByteBuffer()
                for _ in 0..<20 {
                    bytes.writeBytes(abuse.unit(number))
                    number += 1
                }
                sent += bytes.readableBytes
                // The server may have closed; what it said before counts.
                try? await client.send(bytes)
            }
            try #require(client.isClosed, "after \(number) units")
            switch abuse.ending {
            case .goAway(let code):
                #expect(Frame.goAwayCode(in: client.bytes) == code, "after \(number) units")
            case .status(let status):
                #expect(client.text.hasPrefix("HTTP/1.1 \(status) "), "\(client.text.prefix(200))")
            }
            #expect(server.refusals(abuse.reason) >= 1)
            try await client.close()
            let health = try await RawClient.ask(
                server.port, "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            #expect(health.hasPrefix("HTTP/1.1 200 "))
        }
    }

    @Test func oneAddressCannotTakeAllConnections() async throws {
        try await TestServer.run(configured { $0.limits.connectionCountPerAddress = 2 }) { server in
            let first = try await RawClient.connect(port: server.port)
            let second = try await RawClient.connect(port: server.port)
            for client in [first, second] {
                try await client.send("GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
                _ = try await client.read(until: "\r\n\r\nHTTP/1.1")
            }
            let third = try await RawClient.ask(server.port, "")
            #expect(third.hasPrefix("HTTP/1.1 503 "))
            #expect(third.contains("retry-after: "))
            #expect(server.refusals("connections_per_address") == 1)
            try await first.close()
            // Its place is free once the server has seen that.
            var answer = ""
            while !answer.hasPrefix("HTTP/1.1 200 ") {
                answer = try await RawClient.ask(
                    server.port,
                    "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            }
            try await second.close()
        }
    }

    @Test func addressesOfOneNetworkAreOneClient() {
        let one = ClientAddress(ip: "2001:db8:1:2::5")
        #expect(one == ClientAddress(ip: "2001:db8:1:2:aaaa:bbbb:cccc:dddd"))
        #expect(one != ClientAddress(ip: "2001:db8:1:3::5"))
        #expect(ClientAddress(ip: "2001:db8::1") == ClientAddress(ip: "2001:db8:0:0:1::"))
        #expect(ClientAddress(ip: "::1") != ClientAddress(ip: "fe80::1"))
        #expect(ClientAddress(ip: "::ffff:1.2.3.4") == ClientAddress(ip: "1.2.3.4"))
        #expect(ClientAddress(ip: "1.2.3.4") != ClientAddress(ip: "1.2.3.5"))
    }

    /// A header block that never ends, beside a stream that runs: only the deadline ends it.
    @Test func unfinishedFramesAreTimedOut() async throws {
        let quick = configured { $0.limits.headerTimeout = .milliseconds(300) }
        for tail in [
            Frame.headers(Block.get("/"), stream: 3, flags: Frame.endStream),
            Array(Frame.ping().dropLast(3)), [0, 0],
        ] {
            try await TestServer.run(quick) { server in
                let client = try await RawClient.connect(port: server.port)
                let running = Frame.headers(Block.get("/forever"), stream: 1)
                try await client.send(ByteBuffer(bytes: Frame.opening + running + tail))
                _ = try await client.readToEnd()
                #expect(Frame.goAwayCode(in: client.bytes) == 11)
                #expect(server.refusals("header_timeout") == 1)
                try await server.observations.wait(for: "cancelled")
                try await client.close()
            }
        }
    }

    /// A client that takes a byte now and then holds no response for long.
    @Test func dribblingReadersAreGivenUp() async throws {
        let quick = configured {
            $0.limits.responseStallTimeout = .milliseconds(400)
            $0.limits.abuse[.tinyWindow] = .init(burst: 100_000, perSecond: 100_000)
        }
        try await TestServer.run(quick) { server in
            let client = try await RawClient.connect(port: server.port)
            let ask = Frame.settings([(4, 0)]) + Frame.headers(Block.get("/flood"), stream: 1)
            try await client.send(ByteBuffer(bytes: Frame.opening + ask))
            while server.refusals("response_stalled") == 0 {
                try await client.send(ByteBuffer(bytes: Frame.windowUpdate(stream: 1, by: 1)))
                try await Task.sleep(for: .milliseconds(20))
            }
            try await server.observations.wait(for: "cancelled")
            #expect(Frame.parse(client.bytes).contains { $0.type == 3 })
            try await client.close()
        }
    }

    /// 100 answers that the client does not take: each holds its buffer and no more.
    @Test func closedWindowsHoldLittle() async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            let asks = (0..<100).flatMap {
                Frame.headers(Block.get("/flood"), stream: UInt32(2 * $0 + 1))
            }
            let opening = Frame.opening + Frame.settings([(4, 0)])
            try await client.send(ByteBuffer(bytes: opening + asks))
            try await expectSuspension(server)
            #expect(server.observations["flooded"] < 100 * 128 * 1024)
            try await client.close()
            try await server.observations.wait(for: "cancelled", count: 100)
        }
    }
}

extension Abuse {
    /// The abuse begins once the server has answered the opening.
    fileprivate var needsAnswer: Bool { reason == "flood_closed_stream" }
}

extension RawClient {
    /// Returns when an answer's last frame is there, which has END_STREAM.
    fileprivate func waitForBytes() async throws {
        while !isClosed, !Frame.parse(bytes).contains(where: { $0.type == 3 }) {
            try await Task.sleep(for: .milliseconds(1))
        }
    }
}
