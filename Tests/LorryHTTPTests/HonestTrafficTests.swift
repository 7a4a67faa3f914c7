import HTTPTypes
import LorryHTTP
import MetricsTestKit
import NIOCore
import RawTraffic
import Testing

/// Much traffic that is no abuse: it is never cut off.
@Suite struct HonestTrafficTests {
    private func expectNoRefusal(_ server: TestServer) {
        for counter in server.metrics.counters where counter.label == "lorry_http_refusals_total" {
            #expect(counter.totalValue == 0, "\(counter.dimensions)")
        }
    }

    /// Some clients answer each DATA frame, however small, with updates of both windows.
    @Test func thousandsOfSmallEventsAndWindowUpdatesForEach() async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            let ask = Frame.headers(Block.get("/drops"), stream: 1)
            try await client.send(ByteBuffer(bytes: Frame.opening + ask))
            var bytes: [UInt8] = []
            var updated = 0
            var isOver = false
            while !isOver {
                try #require(!client.isClosed)
                bytes += client.take().readableBytesView
                let data = Frame.parse(bytes).filter { $0.type == 0 }
                let update =
                    Frame.windowUpdate(stream: 0, by: 9) + Frame.windowUpdate(stream: 1, by: 9)
                let updates = [[UInt8]](repeating: update, count: data.count - updated)
                isOver = data.last.map { $0.flags & Frame.endStream != 0 } ?? false
                updated = data.count
                try await client.send(ByteBuffer(bytes: Array(updates.joined())))
                try await Task.sleep(for: .milliseconds(5))
            }
            expectNoRefusal(server)
            try await client.close()
        }
    }

    /// Browsers send a PRIORITY_UPDATE or two with each request, and grease.
    @Test func manyRequestsWithPriorities() async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            try await client.send(ByteBuffer(bytes: Frame.opening))
            var answered = 0
            for round in 0..<40 {
                var bytes = ByteBuffer()
                for index in 0..<50 {
                    let stream = UInt32(2 * (50 * round + index) + 1)
                    bytes.writeBytes(Frame.headers(Block.get("/health"), stream: stream))
                    bytes.writeBytes(Frame.priorityUpdate(stream: stream))
                    bytes.writeBytes(Frame.priorityUpdate(stream: stream))
                    bytes.writeBytes(Frame.raw(type: 0x0b))
                }
                try await client.send(bytes)
                answered += 50
                while Frame.parse(client.bytes).filter({ $0.type == 1 }).count < answered {
                    try #require(!client.isClosed)
                    try await Task.sleep(for: .milliseconds(1))
                }
            }
            expectNoRefusal(server)
            try await client.close()
        }
    }

    /// A body of small chunks is mostly framing, and still a body.
    @Test func bodiesInChunksOfOneByte() async throws {
        try await TestServer.run { server in
            let chunks = String(repeating: "1\r\nx\r\n", count: 200_000)
            let answer = try await RawClient.ask(
                server.port,
                "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
                    + "transfer-encoding: chunked\r\n\r\n\(chunks)0\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 200 "))
            #expect(answer.hasSuffix(String(repeating: "x", count: 100)))
            expectNoRefusal(server)
        }
    }

    /// An answer before the body's end: what is under way of the body is no abuse.
    @Test func uploadsThatWereAnsweredEarly() async throws {
        try await TestServer.run(configured { $0.limits.bodyByteCount = 1000 }) { server in
            let client = try await HTTP2Client.connect(port: server.port)
            let streams = try (0..<20).map { _ in
                let stream = try client.session.submitRequest(
                    HTTPRequest(method: .post, scheme: "http", authority: "a", path: "/ignore"),
                    endOfStream: false)
                client.session.appendBody(ByteBuffer(repeating: 1, count: 200_000), stream: stream)
                client.session.finishBody(stream: stream)
                return stream
            }
            try await client.run { _ in streams.allSatisfy(client.isClosed) }
            let next = try client.get("/health")
            try await client.run { _ in client.isClosed(next) }
            #expect(client.status(of: next) == 200)
            try await client.raw.close()
        }
    }
}
