import Foundation
import NIOHTTP1
import Testing

extension EndToEndTests {
    /// Adapters that act together: sums for one request, and merges that stay.
    struct CombinationTests {
        /// What peft answered with two adapters merged by `cat`, which is their exact sum.
        private struct Expected: Decodable {
            struct Case: Decodable {
                let adapters: [String]
                let weights: [Double]
            }
            struct Step: Decodable {
                let token: Int
                let logprob: Double
            }
            let cases: [String: Case]
            let answered: String
            let prompts: [[Int]]
            let answers: [[Step]]
        }

        private struct Answer: Decodable {
            struct Choice: Decodable {
                struct Logprobs: Decodable { let tokenLogprobs: [Double] }
                let tokenIds: [Int]
                let logprobs: Logprobs
            }
            let model: String
            let choices: [Choice]
        }

        private struct Record: Decodable {
            let version: String
            let method: String
            let rank: Int
        }

        private func send(
            _ path: String, _ object: [String: Any], _ client: Client
        ) async throws -> Reply {
            let body = try JSONSerialization.data(withJSONObject: object)
            return try await client.send(
                .POST, path, headers: [("content-type", "application/json")], body: Array(body))
        }

        private func answer(
            _ prompt: [Int], _ choice: [String: Any], _ client: Client
        ) async throws -> (Answer, version: String?) {
            var object: [String: Any] = [
                "prompt": prompt, "max_tokens": 6, "temperature": 0, "ignore_eos": true,
                "logprobs": 0, "return_token_ids": true,
            ]
            object.merge(choice) { $1 }
            let reply = try await send("/v1/completions", object, client)
            #expect(reply.status == 200, "\(reply.text)")
            return (try reply.decoded(), reply.header("x-lorry-adapter-version"))
        }

        private func check(
            _ expected: Expected, _ choice: [String: Any], _ client: Client
        ) async throws {
            for (prompt, steps) in zip(expected.prompts, expected.answers) {
                let (found, _) = try await answer(prompt, choice, client)
                let first = try #require(found.choices.first)
                #expect(first.tokenIds == steps.map(\.token))
                for (mine, theirs) in zip(first.logprobs.tokenLogprobs, steps) {
                    #expect(abs(mine - theirs.logprob) < 2e-3)
                }
            }
        }

        private func withServer(
            _ body: @Sendable (Expected, Client) async throws -> Void
        ) async throws {
            let file = PackageFiles.fixtures.appending(path: "merges/cases.json")
            let expected = try Wire.decoder().decode(
                Expected.self, from: Data(contentsOf: file))
            let folder = PackageFiles.fixtures.appending(path: "llama")
            var options = LorryServer.Options()
            options.model = folder.appending(path: "base")
            options.modelName = "llama"
            options.adapters = folder.appending(path: "adapters")
            try await LorryServer.run(options) { server in
                try await body(expected, server.client)
            }
        }

        @Test func aSumOfAdaptersAnswersAsPeft() async throws {
            try await withServer { expected, client in
                // Keys of the fixture are taken as they are written.
                let sum = try #require(expected.cases["cat_ranks"] ?? expected.cases["catRanks"])
                let entries = zip(sum.adapters, sum.weights).map {
                    ["name": $0, "scale": $1] as [String: Any]
                }
                try await check(expected, ["lora": entries], client)
                let one = try await answer(expected.prompts[0], ["lora": entries], client)
                let other = try await answer(
                    expected.prompts[0], ["lora": Array(entries.reversed())], client)
                #expect(one.version == other.version)
                #expect(one.version?.count == 64)
                #expect(one.0.model == other.0.model)
                #expect(
                    one.0.choices[0].logprobs.tokenLogprobs
                        == other.0.choices[0].logprobs.tokenLogprobs)
                let page = try await client.get("/metrics").text
                #expect(page.contains("adapter=\"\(one.0.model)\""))
                let missing = try await send(
                    "/v1/completions", ["prompt": [3], "lora": entries + [["name": "nobody"]]],
                    client)
                #expect(missing.status == 404)
            }
        }

        @Test func aMergeIsAnAdapterOfItsOwn() async throws {
            try await withServer { expected, client in
                let sum = try #require(expected.cases["cat_ranks"] ?? expected.cases["catRanks"])
                let object: [String: Any] = [
                    "adapters": zip(sum.adapters, sum.weights).map {
                        ["name": $0, "weight": $1] as [String: Any]
                    },
                    "combination_type": "cat",
                ]
                let created = try await send("/admin/adapters/both/merge", object, client)
                #expect(created.status == 201, "\(created.text)")
                let record: Record = try created.decoded()
                #expect(record.method == "lora" && record.rank == 24)
                try await check(expected, ["model": "both"], client)
                let again = try await send("/admin/adapters/both/merge", object, client)
                #expect(again.status == 200, "\(again.text)")
                #expect(try again.decoded(as: Record.self).version == record.version)
                for (change, part) in [
                    (["combination_type": "linear"], "equal rank"),
                    (["combination_type": "ties"], "density"),
                    (["combination_type": "mean"], "must be one of"), (["density": "x"], "number"),
                    (["adapters": [[String: Any]]()], "adapters"),
                ] as [([String: Any], String)] {
                    let refused = try await send(
                        "/admin/adapters/other/merge", object.merging(change) { $1 }, client)
                    #expect(refused.status == 400 && refused.text.contains(part), "\(refused.text)")
                }
                let other = try await client.get("/admin/adapters/other")
                #expect(other.status == 404)
            }
        }
    }
}
