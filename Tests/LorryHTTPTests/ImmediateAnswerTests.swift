import Foundation
import LorryHTTP
import NIOConcurrencyHelpers
import NIOCore
import RawTraffic
import Testing

/// Answers that need none of the threads on which requests run.
@Suite struct ImmediateAnswerTests {
    /// Keeps all threads of Swift's pool busy, the caller's among them, while `body` runs.
    private func holdingAllThreads(_ body: () throws -> Void) rethrows {
        let isOver = NIOLockedValueBox(false)
        let heldCount = NIOLockedValueBox(0)
        defer { isOver.withLockedValue { $0 = true } }
        for _ in 0..<(4 * System.coreCount) {
            Task.detached(priority: .medium) {
                heldCount.withLockedValue { $0 += 1 }
                // Not asleep: Dispatch makes up for threads that sleep.
                while !isOver.withLockedValue({ $0 }) {}
            }
        }
        // The caller's is the last one.
        wait { heldCount.withLockedValue { $0 } >= System.coreCount - 1 }
        try body()
    }

    private func wait(until isDone: () -> Bool) {
        while !isDone() { usleep(200) }
    }

    @Test func heldThreadsHoldUpNoImmediateAnswer() async throws {
        try await TestServer.run { server in
            let ordinary = try await RawClient.connect(port: server.port)
            let http1 = try await RawClient.connect(port: server.port)
            let http2 = try await RawClient.connect(port: server.port)
            holdingAllThreads {
                ordinary.post(Array("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n".utf8))
                wait { server.streamCount == 1 }
                for count in 1...3 {
                    http1.post(Array("GET /health HTTP/1.1\r\nhost: a\r\n\r\n".utf8))
                    // The body says the protocol, as each answer's first line does.
                    wait { http1.text.components(separatedBy: "HTTP/1.1").count == 1 + 2 * count }
                }
                let ask = Frame.headers(
                    Block.get("/health"), stream: 1, flags: Frame.endHeaders | Frame.endStream)
                http2.post(Frame.opening + ask)
                wait { http2.text.contains("HTTP/2") }
                // They were counted, and have ended; the ordinary one has not begun.
                #expect(server.streamCount == 1)
                #expect(server.observations["slow"] == 0)
                #expect(ordinary.text.isEmpty)
            }
            #expect(try await ordinary.read(until: "\r\n\r\nslow").hasPrefix("HTTP/1.1 200 "))
            for client in [ordinary, http1, http2] { try await client.close() }
        }
    }

    /// A request that is answered before its body came is still read to its end.
    @Test func aBodyThatNobodyReadsIsNoHindrance() async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            try await client.send(
                "GET /health HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"
                    + "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            let answer = try await client.readToEnd()
            #expect(answer.components(separatedBy: "HTTP/1.1 200 OK").count == 3)
        }
    }
}
