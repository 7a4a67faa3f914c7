import Foundation
import NIOHTTP1
import Testing

extension EndToEndTests {
    /// The main call of each server whose API is spoken, through an adapter whose answers are known.
    struct FrontEndTests {
        private func post(_ path: String, _ json: String, _ client: Client) async throws -> Reply {
            try await client.send(
                .POST, path, headers: [("content-type", "application/json")],
                body: Array(json.utf8))
        }

        /// Compares what each call answers to each of an adapter's goldens.
        private func check(
            _ name: String, _ path: String, _ body: @Sendable (_ prompt: String, Int) -> String,
            ids: @Sendable (Reply) throws -> [Int]
        ) async throws {
            // Some begin with a token that servers add themselves.
            let goldens = try TalesGoldens.read().answers(name).filter {
                !$0.prompt.hasPrefix("<|bos|>")
            }
            #expect(!goldens.isEmpty)
            try await LorryServer.run { server in
                for golden in goldens {
                    let quoted = String(
                        decoding: try JSONEncoder().encode(golden.prompt), as: UTF8.self)
                    let reply = try await post(path, body(quoted, golden.ids.count), server.client)
                    #expect(reply.status == 200, "\(reply.text)")
                    let found = try ids(reply)
                    #expect(found.count == golden.ids.count)
                    let count = golden.comparableCount(with: found)
                    #expect(found.prefix(count) == golden.ids.prefix(count), "\(golden.prompt)")
                }
            }
        }

        private struct LlamaCpp: Decodable { let tokens: [Int] }

        @Test func llamaCppsCompletion() async throws {
            try await check("pirate", "/completion") { prompt, count in
                #"{"prompt": \#(prompt), "n_predict": \#(count), "temperature": 0, "ignore_eos": true, "#
                    + #""return_tokens": true, "lora": [{"name": "pirate", "scale": 1.0}]}"#
            } ids: {
                try $0.decoded(as: LlamaCpp.self).tokens
            }
        }

        private struct Adapter: Decodable {
            let id: Int
            let path: String
            let scale: Double
        }

        /// The documented way: the list of adapters, their scales, and a request without a model.
        @Test func llamaCppsScales() async throws {
            let golden = try #require(try TalesGoldens.read().answers("shout").first)
            try await LorryServer.run { server in
                let client = server.client
                let list: [Adapter] = try await client.get("/lora-adapters").decoded()
                let shout = try #require(list.first { $0.path == "shout" })
                let set = try await post(
                    "/lora-adapters", #"[{"id": \#(shout.id), "scale": 1.0}]"#, client)
                #expect(set.text == #"{"success":true}"#)
                var ask = Ask("tales-5m", .text(golden.prompt), golden.ids.count)
                let plain = try await client.complete(ask).choice()
                #expect(plain.tokenIds != golden.ids)
                ask.model = ""
                let ids = try #require(try await client.complete(ask).choice().tokenIds)
                let count = golden.comparableCount(with: ids)
                #expect(ids.prefix(count) == golden.ids.prefix(count))
                let after: [Adapter] = try await client.get("/lora-adapters").decoded()
                #expect(after.filter { $0.scale != 0 }.map(\.path) == ["shout"])
            }
        }

        private struct SGLang: Decodable { let outputIds: [Int] }

        @Test func sgLangsGenerate() async throws {
            try await check("telegram", "/generate") { prompt, count in
                #"{"text": [\#(prompt)], "lora_path": ["telegram"], "sampling_params": "#
                    + #"{"temperature": 0, "max_new_tokens": \#(count), "ignore_eos": true}}"#
            } ids: {
                try $0.decoded(as: [SGLang].self).flatMap(\.outputIds)
            }
        }

        private struct LoRAX: Decodable {
            struct Details: Decodable {
                struct Token: Decodable { let id: Int }
                let tokens: [Token]
            }
            let details: Details
        }

        @Test func loRAXsGenerate() async throws {
            try await check("robots", "/") { prompt, count in
                #"{"inputs": \#(prompt), "stream": false, "parameters": {"adapter_id": "robots", "#
                    + #""adapter_source": "local", "max_new_tokens": \#(count), "#
                    + #""ignore_eos_token": true, "details": true}}"#
            } ids: {
                try $0.decoded(as: [LoRAX].self).flatMap { $0.details.tokens.map(\.id) }
            }
        }

        /// vLLM's way to bring an adapter in while it serves, and to take it out again.
        @Test func vLLMsLoadAndUnload() async throws {
            let golden = try #require(try TalesGoldens.read().answers("pirate").first)
            var options = LorryServer.Options()
            options.adapters = nil
            options.further = ["--allowed-adapter-root", PackageFiles.talesAdapters.path]
            try await LorryServer.run(options) { server in
                let client = server.client
                let loaded = try await post(
                    "/v1/load_lora_adapter",
                    #"{"lora_name": "sea_dog", "lora_path": "pirate"}"#, client)
                #expect(loaded.text == "Success: LoRA adapter 'sea_dog' added successfully.")
                let ask = Ask("sea_dog", .text(golden.prompt), golden.ids.count)
                let ids = try #require(try await client.complete(ask).choice().tokenIds)
                let count = golden.comparableCount(with: ids)
                #expect(ids.prefix(count) == golden.ids.prefix(count))
                let unloaded = try await post(
                    "/v1/unload_lora_adapter", #"{"lora_name": "sea_dog"}"#, client)
                #expect(unloaded.text == "Success: LoRA adapter 'sea_dog' removed successfully.")
                #expect(try await client.post("/v1/completions", ask).status == 404)
            }
        }
    }
}
