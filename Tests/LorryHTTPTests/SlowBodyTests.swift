import LorryHTTP
import NIOCore
import RawTraffic
import Testing

@Suite struct SlowBodyTests {
    /// What is enough for the first moments is not enough for long.
    @Test(arguments: HTTPProtocolVersion.allCases)
    func aBodyCannotBeDrawnOut(version: HTTPProtocolVersion) async throws {
        try await TestServer.run(
            configured {
                $0.limits.bodyIdleTimeout = .seconds(1)
                $0.limits.bodyByteRate = 1
                $0.limits.longBodyTimeout = .seconds(1)
            }
        ) { server in
            let client = try await RawClient.connect(port: server.port)
            let byteCount = 500
            let (head, piece): ([UInt8], [UInt8]) =
                switch version {
                case .http1:
                    (
                        Array(
                            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: \(byteCount)\r\n\r\n"
                                .utf8), Array("a".utf8)
                    )
                case .http2:
                    (
                        Frame.opening
                            + Frame.headers(
                                Block.post("/echo"), stream: 1, flags: Frame.endHeaders),
                        Frame.data(Array("a".utf8), stream: 1)
                    )
                }
            client.post(head)
            var sent = 0
            while sent < byteCount, server.refusals("body_timeout") == 0 {
                client.post(piece)
                sent += 1
                try await Task.sleep(for: .milliseconds(20))
            }
            #expect(server.refusals("body_timeout") == 1)
            // It was longer than the silence that is allowed, in bytes that came steadily.
            #expect(sent > 1 && sent < byteCount)
            #expect(server.observations["echo"] == 0)
            try await client.close()
        }
    }
}
