import Foundation
import Testing

extension EndToEndTests {
    struct AccessTests {
        private static let keys = """
            - {key: user-key, tenant: acme, roles: [inference], adapters: [pirate, shout]}
            - {key: admin-key, tenant: acme, roles: [admin]}
            - {key: scrape-key, tenant: acme, roles: [metrics]}
            """

        @Test func keysOpenTheirRoutesAndAdaptersOnly() async throws {
            let scratch = try ScratchFolder()
            var options = LorryServer.Options()
            options.further = ["--api-keys", try scratch.file("keys.yaml", Self.keys)]
            try await LorryServer.run(options) { server in
                func client(_ key: String?) -> Client {
                    var client = server.client
                    client.key = key
                    return client
                }
                let ask = Ask("pirate", .text("Hello"), 2)
                for key in [nil, "other-key"] {
                    #expect(try await client(key).get("/health").status == 200)
                    let reply = try await client(key).post("/v1/completions", ask)
                    #expect(reply.status == 401)
                    #expect(reply.header("www-authenticate") == "Bearer")
                    #expect(try await client(key).get("/metrics").status == 401)
                }
                let user = client("user-key")
                #expect(try await user.complete(ask).choice().tokenIds?.count == 2)
                let models: ModelList = try await user.get("/v1/models").decoded()
                #expect(models.data.map(\.id).contains("pirate"))
                #expect(!models.data.map(\.id).contains("telegram"))
                let hidden = try await user.post(
                    "/v1/completions", Ask("telegram", .text("Hello"), 2))
                let missing = try await user.post(
                    "/v1/completions", Ask("telegraph", .text("Hello"), 2))
                #expect(hidden.status == 404)
                #expect(missing.status == 404)
                #expect(
                    hidden.text.replacing("telegram", with: "")
                        == missing.text.replacing("telegraph", with: ""))
                #expect(try await user.get("/metrics").status == 403)
                #expect(try await user.get("/admin/adapters").status == 403)
                #expect(try await client("scrape-key").get("/metrics").status == 200)
                #expect(
                    try await client("scrape-key").post("/v1/completions", ask).status == 403)
                #expect(try await client("admin-key").get("/admin/adapters").status == 200)
                #expect(
                    try await client("admin-key").post("/v1/completions", ask).status == 403)
            }
        }
    }
}
