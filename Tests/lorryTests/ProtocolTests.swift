import Foundation
import NIOHTTP1
import Testing

extension EndToEndTests {
    struct ProtocolTests {
        private struct ChatAsk: Encodable {
            struct Message: Encodable {
                let role: String
                let content: String
            }
            let model: String
            let messages: [Message]
            var maxTokens = 4
            var temperature = 0.0
        }

        @Test func answersCarryWhatClientsLookFor() async throws {
            try await LorryServer.run { server in
                let client = server.client
                let ask = Ask("pirate", .text("Hello"), 4)
                let mine = try await client.post(
                    "/v1/completions", ask, headers: [("x-request-id", "mine-17")])
                #expect(mine.header("x-request-id") == "mine-17")
                let timing = try #require(mine.header("server-timing"))
                for phase in ["queue", "load", "prefill", "decode"] {
                    #expect(timing.contains("\(phase);dur="), "\(timing)")
                }
                let record: AdapterAnswer = try await client.get("/admin/adapters/pirate").decoded()
                #expect(record.state == "resident")
                #expect(mine.header("x-lorry-adapter-version") == record.version)
                let first = try await client.get("/version").header("x-request-id")
                let second = try await client.get("/version").header("x-request-id")
                #expect(first != nil && second != nil && first != second)

                let head = try await client.send(.HEAD, "/health")
                #expect(head.status == 200 && head.body.isEmpty)
                let chat = try await client.post(
                    "/v1/chat/completions",
                    ChatAsk(model: "shout", messages: [.init(role: "user", content: "Hello")]))
                #expect(chat.status == 200, "\(chat.text)")
            }
        }

        @Test func errorsAreJSONOfTheirStatus() async throws {
            try await LorryServer.run { server in
                let client = server.client
                let json = [("content-type", "application/json")]
                func check(_ reply: Reply, _ status: Int, _ word: String) throws {
                    #expect(reply.status == status)
                    #expect(
                        reply.header("content-type")?.hasPrefix("application/json")
                            == true)
                    let failure: Failure = try reply.decoded()
                    #expect(failure.error.message.contains(word), "\(failure.error.message)")
                }
                try check(try await client.get("/v2/nothing"), 404, "/v2/nothing")
                try check(try await client.get("/v1/completions"), 405, "POST")
                try check(
                    try await client.post("/v1/completions", Ask("nobody", .text("x"), 1)), 404,
                    "nobody")
                try check(
                    try await client.post("/v1/completions", Ask("pirate", .text("x"), -1)), 400,
                    "max_tokens")
                try check(
                    try await client.post("/v1/completions", Ask("pirate", .text("x"), 100_000)),
                    400, "512")
                try check(
                    try await client.send(.POST, "/v1/completions", headers: json, body: [123]),
                    400, "JSON")
                try check(try await client.get("/admin/adapters/nobody"), 404, "nobody")
                try check(
                    try await client.put("bad", Array("not an archive".utf8)), 400, "tar")
                // Only announced: the server does not wait for what it will refuse.
                try check(
                    try await client.send(
                        .POST, "/v1/completions",
                        headers: json + [("content-length", "\(1 << 30)")]), 413, "limit")
            }
        }

        @Test func compressesJSONWhenAsked() async throws {
            try await LorryServer.run { server in
                let plain = try await server.client.get("/v1/models")
                #expect(plain.header("content-encoding") == nil)
                let packed = try await server.client.get(
                    "/v1/models", headers: [("accept-encoding", "gzip")])
                #expect(packed.header("content-encoding") == "gzip")
                #expect(packed.body.starts(with: [0x1F, 0x8B]))
                #expect(packed.body.count < plain.body.count)
            }
        }
    }
}
