import Foundation
import Testing

extension EndToEndTests {
    struct StartTests {
        private static let model = ["--model", PackageFiles.tales.path]

        /// `serve` has to fail and to name each of `words`.
        private func expectFailure(
            _ arguments: [String], naming words: [String],
            location: SourceLocation = #_sourceLocation
        ) async throws {
            let state = try ScratchFolder()
            let own =
                arguments.contains("--state-dir") ? [] : ["--state-dir", state.path, "--port", "0"]
            let result = try await LorryProcess.result(["serve"] + own + arguments)
            #expect(result.ending != .exit(0), sourceLocation: location)
            guard case .exit = result.ending else {
                Issue.record("ended by \(result.ending)", sourceLocation: location)
                return
            }
            for word in words {
                #expect(result.errors.contains(word), sourceLocation: location)
            }
            #expect(result.output.isEmpty, sourceLocation: location)
        }

        @Test func namesWhatIsWrongWithItsSettings() async throws {
            let scratch = try ScratchFolder()
            try await expectFailure(["--ports", "1"], naming: ["--ports"])
            try await expectFailure(Self.model + ["--port", "http"], naming: ["--port", "http"])
            try await expectFailure(Self.model + ["--weights", "f8"], naming: ["--weights", "f8"])
            try await expectFailure(
                Self.model + ["--memory-budget", "much"], naming: ["--memory-budget", "much"])
            try await expectFailure(
                Self.model + ["--host", "0.0.0.0"], naming: ["--host", "--api-keys"])
            try await expectFailure(
                Self.model + ["--tls-cert", "cert.pem"], naming: ["--tls-cert", "--tls-key"])
            try await expectFailure(
                Self.model + ["--config", try scratch.file("a.yaml", "prot: 80\n")],
                naming: ["a.yaml", "prot", "port"])
            try await expectFailure(
                Self.model + ["--api-keys", try scratch.file("k.yaml", "- tenant: a\n")],
                naming: ["key 1"])
            try await expectFailure(
                Self.model + ["--api-keys", "/nowhere/keys.yaml"],
                naming: ["--api-keys", "/nowhere/keys.yaml"])
        }

        @Test func namesWhatIsWrongWithItsModel() async throws {
            let scratch = try ScratchFolder()
            try await expectFailure(["--model", "/nowhere/model"], naming: ["/nowhere/model"])
            try await expectFailure(["--model", scratch.path], naming: ["config.json"])
            _ = try scratch.file(
                "config.json", #"{"architectures": ["NovelForCausalLM"], "model_type": "novel"}"#)
            try await expectFailure(["--model", scratch.path], naming: ["novel"])
        }

        @Test func servesTheExampleWhenToldNothing() async throws {
            var options = LorryServer.Options()
            options.model = nil
            options.adapters = nil
            try await LorryServer.run(options) { server in
                let models: ModelList = try await server.client.get("/v1/models").decoded()
                let names = ["pirate", "robots", "shakespeare", "shout", "telegram"]
                #expect(models.data.map(\.id) == ["tales-5m"] + names)
            }
        }

        @Test func namesAPortAndAStateFolderInUse() async throws {
            let state = try ScratchFolder()
            var options = LorryServer.Options()
            options.state = state
            try await LorryServer.run(options) { server in
                try await expectFailure(
                    Self.model + ["--state-dir", state.path, "--port", "0"], naming: [state.path])
                let other = try ScratchFolder()
                try await expectFailure(
                    Self.model + ["--state-dir", other.path, "--port", "\(server.client.port)"],
                    naming: ["\(server.client.port)"])
            }
        }

        @Test func adaptersAreNotOfferedToAnotherBaseModel() async throws {
            let state = try ScratchFolder()
            var options = LorryServer.Options()
            options.state = state
            try await LorryServer.run(options) { _ in }
            var other = options
            other.model = PackageFiles.fixtures.appending(path: "llama/base")
            other.adapters = nil
            try await LorryServer.run(other) { server in
                let models: ModelList = try await server.client.get("/v1/models").decoded()
                #expect(models.data.map(\.id) == ["base"])
                let reply = try await server.client.post(
                    "/v1/completions", Ask("pirate", .text("a"), 1))
                #expect(reply.status == 422, "\(reply.text)")
            }
            // They are back with the base model that they were made for.
            options.adapters = nil
            try await LorryServer.run(options) { server in
                let card = try await server.client.get("/v1/models/pirate")
                #expect(card.status == 200)
            }
        }

        @Test func aRefusedAdapterEndsOnlyAStrictStart() async throws {
            let scratch = try ScratchFolder()
            let fixtures = PackageFiles.fixtures.appending(path: "llama")
            try FileManager.default.copyItem(
                at: fixtures.appending(path: "adapters/lora_qv"),
                to: scratch.url.appending(path: "good"))
            try FileManager.default.copyItem(
                at: fixtures.appending(path: "unsupported/lily"),
                to: scratch.url.appending(path: "strange"))
            var options = LorryServer.Options()
            options.model = fixtures.appending(path: "base")
            options.adapters = scratch.url
            try await LorryServer.run(options) { server in
                let models: ModelList = try await server.client.get("/v1/models").decoded()
                #expect(models.data.map(\.id) == ["base", "good"])
                #expect(models.data.last?.parent == "base")
                let line = server.process.standardError.split(separator: "\n")
                    .first { $0.contains("adapter refused") }
                #expect(line?.contains("strange") == true)
                #expect(line?.localizedCaseInsensitiveContains("LILY") == true)
            }
            try await expectFailure(
                [
                    "--model", fixtures.appending(path: "base").path, "--adapters", scratch.path,
                    "--strict-adapters",
                ], naming: ["strange", "1 of 2 adapters"])
        }
    }
}
