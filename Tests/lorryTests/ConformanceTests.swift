import Foundation
import Testing

extension EndToEndTests {
    struct ConformanceTests {
        private struct Expected: Decodable {
            struct Step: Decodable { let token: Int }
            let prompts: [[Int]]
            let answers: [String: [[Step]]]
        }

        private struct Job: Sendable, Hashable {
            let model: String
            let prompt: [Int]
        }

        /// The answer's choices as they were written, log-probabilities to the last digit.
        private func choices(_ job: Job, _ client: Client) async throws -> Substring {
            var ask = Ask(job.model, .tokens(job.prompt), 12)
            ask.logprobs = 5
            ask.returnTokensAsTokenIds = true
            let reply = try await client.post("/v1/completions", ask)
            guard reply.status == 200, let start = reply.text.range(of: "\"choices\":") else {
                throw TestFailure("\(job.model): \(reply.status) \(reply.text)")
            }
            // What was found in the prefix cache is told in `usage`, and may differ.
            let end = reply.text.range(of: "\"usage\":")?.lowerBound ?? reply.text.endIndex
            guard start.lowerBound < end else { return reply.text[start.lowerBound...] }
            return reply.text[start.lowerBound..<end]
        }

        @Test func answersDoNotDependOnTheBatch() async throws {
            let folder = PackageFiles.fixtures.appending(path: "llama")
            let expected = try JSONDecoder().decode(
                Expected.self, from: Data(contentsOf: folder.appending(path: "expected.json")))
            var options = LorryServer.Options()
            options.model = folder.appending(path: "base")
            options.modelName = "llama"
            options.adapters = folder.appending(path: "adapters")
            try await LorryServer.run(options) { server in
                let client = server.client
                let refused = try FileManager.default.contentsOfDirectory(
                    atPath: folder.appending(path: "unsupported").path)
                let names = Set(expected.answers.keys).subtracting(refused)
                let jobs = names.sorted().flatMap { name in
                    expected.prompts.map { Job(model: name.isEmpty ? "llama" : name, prompt: $0) }
                }
                #expect(names.count > 80)
                let mixed = try await withThrowingTaskGroup(of: (Job, Substring).self) { group in
                    for job in jobs {
                        group.addTask { (job, try await choices(job, client)) }
                    }
                    return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
                }
                for job in jobs {
                    #expect(try await choices(job, client) == mixed[job], "\(job.model)")
                }
                // The requests ran together, not one after the other.
                let page = try await client.metrics()
                let steps = try #require(page.value("lorry_batch_adapters_count"))
                #expect(try #require(page.value("lorry_batch_adapters_sum")) > steps)
            }
        }
    }
}
