import CraftedArchives
import Foundation
import NIOHTTP1
import Testing

extension EndToEndTests {
    /// Everything that an upload may be refused for, sent to a running server: each row is refused
    /// by name, and leaves no byte of the state directory changed.
    struct RefusalTests {
        static func matrix() throws -> [Refusal] {
            Refusal.safetensorsFiles + Refusal.safetensorsEntries + Refusal.tensors
                + Refusal.configurations + Refusal.fields + Refusal.files + Refusal.archives
                + (try Refusal.compressed()) + Refusal.multiparts + Refusal.requests
        }

        private static let llama = PackageFiles.fixtures.appending(path: "llama")

        /// Every path below a folder, with what a file holds.
        private static func contents(_ folder: URL) throws -> [String: Data] {
            var contents: [String: Data] = [:]
            for path in try FileManager.default.subpathsOfDirectory(atPath: folder.path) {
                // Of a folder there is nothing to read.
                contents[path] =
                    FileManager.default.contents(atPath: folder.appending(path: path).path)
                    ?? Data()
            }
            return contents
        }

        @Test func everyRowIsRefusedByNameAndLeavesNothing() async throws {
            let state = try ScratchFolder()
            let options = LorryServer.Options(
                model: Self.llama.appending(path: "base"), modelName: "tiny", adapters: nil,
                state: state, further: ["--weight-cache", "off"])
            try await LorryServer.run(options) { server in
                let client = server.client
                // What there is stays, and what breaks the rows is the change alone.
                let good = try await client.put("good", TarBuilder(CraftedUpload().files).archive)
                #expect(good.status == 201, "\(good.text)")
                let before = try Self.contents(state.url)
                #expect(before.count > 5)
                for row in try Self.matrix() {
                    let reply = try await client.send(
                        .PUT, row.path,
                        headers: (row.body.type.map { [("content-type", $0)] } ?? [])
                            + row.body.headers,
                        body: row.body.bytes)
                    #expect(reply.status == row.status, "\(row.rule): \(reply.text)")
                    let message = (try? reply.decoded(as: Failure.self))?.error.message ?? ""
                    for culprit in row.culprits {
                        #expect(message.contains(culprit), "\(row.rule): '\(message)'")
                    }
                    #expect(message.utf8.count < 4096, "\(row.rule)")
                    let after = try Self.contents(state.url)
                    let changed = Set(before.keys).union(after.keys).filter {
                        before[$0] != after[$0]
                    }
                    #expect(changed.isEmpty, "\(row.rule) changed \(changed)")
                }
                let list = try await client.get("/admin/adapters")
                #expect(list.text.contains("good") && !list.text.contains("crafted"))
            }
        }

        /// Weights that make a merge's numbers infinite.
        @Test func mergesThatOverflowAreRefused() async throws {
            let options = LorryServer.Options(
                model: Self.llama.appending(path: "base"), modelName: "tiny", adapters: nil)
            try await LorryServer.run(options) { server in
                let client = server.client
                let archive = TarBuilder(CraftedUpload().files).archive
                #expect(try await client.put("good", archive).status == 201)
                func post(_ path: String, _ json: String) async throws -> (Int, String) {
                    let reply = try await client.send(
                        .POST, path, headers: [("content-type", "application/json")],
                        body: Array(json.utf8))
                    return (reply.status, reply.text)
                }
                let (status, text) = try await post(
                    "/v1/completions",
                    #"{"prompt": [1, 2], "lora": [{"name": "good", "scale": 1e38}]}"#)
                #expect(status == 400 && text.contains("lora[0].scale"), "\(status) \(text)")
                let huge =
                    #"{"adapters": [{"name": "good", "weight": 3e38}, {"name": "good", "weight": 3e38}], "combination_type": "cat"}"#
                let (merged, reason) = try await post("/admin/adapters/huge/merge", huge)
                #expect(merged == 400 && reason.contains("not finite"), "\(merged) \(reason)")
                let (after, _) = try await post(
                    "/v1/completions", #"{"model": "good", "prompt": [1, 2]}"#)
                #expect(after == 200)
            }
        }

        @Test func theMatrixNamesEachRuleOnce() throws {
            let rules = try Self.matrix().map(\.rule)
            #expect(Set(rules).count == rules.count)
            #expect(rules.count >= 150)
        }
    }
}
