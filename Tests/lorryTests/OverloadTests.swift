import Foundation
import NIOCore
import NIOHTTP1
import RawTraffic
import Testing

extension EndToEndTests {
    /// A server with more to do than it can: quick refusals, and no work for who does not wait.
    struct OverloadTests {
        private static let tokenCount = 300
        private static let crowd = 4

        /// How a client stops to wait.
        enum Departure: String, CaseIterable, Sendable {
            case closes, closesHTTP2, resetsStream, deadlinePasses
        }

        private func ask(_ tokenCount: Int) -> Ask {
            Ask("pirate", .text("Once upon a time"), tokenCount)
        }

        /// Sends a request that must wait, and leaves.
        private func leave(_ how: Departure, _ client: Client) async throws {
            let body = Array(try Wire.encoder().encode(ask(200)))
            func waits() async throws {
                while try await client.metrics().value("lorry_http_streams") ?? 0
                    < Double(Self.crowd + 2)
                { try await Task.sleep(for: .milliseconds(1)) }
            }
            switch how {
            case .deadlinePasses:
                let reply = try await client.send(
                    .POST, "/v1/completions",
                    headers: [
                        ("content-type", "application/json"),
                        ("x-envoy-expected-rq-timeout-ms", "30"),
                    ], body: body)
                #expect([503, 504].contains(reply.status), "\(reply.text)")
            case .closes:
                let raw = try await RawClient.connect(port: client.port)
                try await raw.send(
                    "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
                        + "content-length: \(body.count)\r\n\r\n")
                try await raw.send(ByteBuffer(bytes: body))
                try await waits()
                try await raw.close()
            case .closesHTTP2, .resetsStream:
                let raw = try await RawClient.connect(port: client.port)
                let head =
                    Block.post("/v1/completions") + Block.field("content-type", "application/json")
                let post =
                    Frame.headers(head, stream: 1, flags: Frame.endHeaders)
                    + Frame.data(body, stream: 1, flags: Frame.endStream)
                try await raw.send(ByteBuffer(bytes: Frame.opening + post))
                try await waits()
                if how == .resetsStream {
                    try await raw.send(ByteBuffer(bytes: Frame.reset(stream: 1)))
                    while try await client.metrics().value("vllm:num_requests_waiting") ?? 0
                        >= Double(Self.crowd)
                    { try await Task.sleep(for: .milliseconds(1)) }
                }
                try await raw.close()
            }
        }

        @Test(arguments: Departure.allCases)
        func whoLeavesTheQueueCostsNothing(how: Departure) async throws {
            var options = LorryServer.Options()
            options.further = ["--max-running", "1"]
            try await LorryServer.run(options) { server in
                let client = server.client
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<Self.crowd {
                        group.addTask { _ = try await client.complete(ask(Self.tokenCount)) }
                    }
                    while try await client.metrics().value("vllm:num_requests_waiting")
                        != Double(Self.crowd - 1)
                    { try await Task.sleep(for: .milliseconds(1)) }
                    try await leave(how, client)
                    try await group.waitForAll()
                }
                let page = try await client.metricsAtRest()
                #expect(
                    page.sum("vllm:generation_tokens_total")
                        == Double(Self.crowd * Self.tokenCount))
                let succeeded = page.sum("lorry_requests_total", ["outcome": "succeeded"])
                #expect(succeeded == Double(Self.crowd))
                #expect(page.sum("lorry_requests_total") == Double(Self.crowd + 1))
            }
        }

        @Test func aFullQueueAnswersAtOnce() async throws {
            var options = LorryServer.Options()
            options.further = ["--max-running", "1", "--max-waiting", "4"]
            try await LorryServer.run(options) { server in
                let client = server.client
                let crowd = 30
                let replies = try await withThrowingTaskGroup(of: (Reply, Duration).self) { group in
                    for _ in 0..<crowd {
                        group.addTask {
                            let start = ContinuousClock.now
                            let reply = try await client.post(
                                "/v1/completions", ask(Self.tokenCount))
                            return (reply, ContinuousClock.now - start)
                        }
                    }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                let refused = replies.filter { $0.0.status == 429 }
                let served = replies.filter { $0.0.status == 200 }
                #expect(refused.count + served.count == crowd)
                #expect(!refused.isEmpty && !served.isEmpty)
                #expect(refused.allSatisfy { Int($0.0.header("retry-after") ?? "") ?? 0 > 0 })
                // Refusals do not wait for those that are served.
                let slowest = try #require(refused.map(\.1).max())
                #expect(slowest < (try #require(served.map(\.1).max())))
            }
        }

        @Test func connectionsBeyondTheLimitAreToldSo() async throws {
            var options = LorryServer.Options()
            options.further = ["--max-connections-per-address", "3"]
            try await LorryServer.run(options) { server in
                let port = server.client.port
                var idle: [RawClient] = []
                for _ in 0..<3 {
                    let client = try await RawClient.connect(port: port)
                    try await client.send("GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
                    _ = try await client.read(until: "\r\n\r\n")
                    idle.append(client)
                }
                let refused = try await RawClient.ask(port, "")
                #expect(refused.hasPrefix("HTTP/1.1 503 "))
                #expect(refused.contains("retry-after: "))
                for client in idle { try await client.close() }
                while true {
                    if let reply = try? await server.client.get("/metrics"), reply.status == 200 {
                        let refusals = MetricsPage(reply.text).value(
                            "lorry_http_refusals_total", ["reason": "connections_per_address"])
                        #expect(refusals ?? 0 >= 1)
                        break
                    }
                }
            }
        }
    }
}
