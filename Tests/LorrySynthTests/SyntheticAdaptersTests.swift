import Foundation
import LorrySynth
import Testing

@Suite struct SyntheticAdaptersTests {
    private func makeModel(in folder: TemporaryFolder) async throws -> URL {
        let model = folder.url.appending(path: "model")
        try await SyntheticModel.write(
            shape: SyntheticModelTests.tinyShape(), to: model, seed: 1)
        return model
    }

    @Test func adaptersCycleThroughTheRanks() async throws {
        let folder = try TemporaryFolder()
        let out = folder.url.appending(path: "adapters")
        try await SyntheticAdapters.write(
            modelDirectory: try await makeModel(in: folder), count: 5, ranks: [4, 2],
            targets: ["all"], to: out, seed: 2)
        for index in 0..<5 {
            let adapter = out.appending(path: "adapter-000\(index)")
            let rank = [4, 2][index % 2]
            let configuration = try jsonObject(adapter.appending(path: "adapter_config.json"))
            #expect(configuration["r"] as? Int == rank)
            #expect(configuration["lora_alpha"] as? Int == 2 * rank)
            #expect(configuration["peft_type"] as? String == "LORA")
            #expect((configuration["target_modules"] as? [String])?.count == 7)
            let tensors = try SafetensorsReader(
                adapter.appending(path: "adapter_model.safetensors")
            ).tensors
            #expect(tensors.count == 2 * 7 * 2)
            let prefix = "base_model.model.model.layers.1.mlp.down_proj."
            #expect(tensors[prefix + "lora_A.weight"]?.shape == [rank, 40])
            #expect(tensors[prefix + "lora_B.weight"]?.shape == [24, rank])
            #expect(tensors.values.allSatisfy { $0.type == "BF16" })
            #expect(tensors.values.allSatisfy { $0.values.allSatisfy(\.isFinite) })
        }
    }

    /// A delta that is neither lost beside the base's output nor drowns it.
    @Test func deltasAreAThirdOfTheBasesOutput() async throws {
        let folder = try TemporaryFolder()
        let model = try await makeModel(in: folder)
        let out = folder.url.appending(path: "adapters")
        try await SyntheticAdapters.write(
            modelDirectory: model, count: 1, ranks: [8], targets: ["gate_proj"], to: out, seed: 2,
            type: .f32)
        let base = try SafetensorsReader(model.appending(path: "model.safetensors")).tensors
        let adapter = try SafetensorsReader(
            out.appending(path: "adapter-0000/adapter_model.safetensors")
        ).tensors
        let name = "model.layers.0.mlp.gate_proj."
        let weight = try #require(base[name + "weight"]).values
        let a = try #require(adapter["base_model.model." + name + "lora_A.weight"]).values
        let b = try #require(adapter["base_model.model." + name + "lora_B.weight"]).values
        var delta: [Float] = []
        for row in 0..<40 {
            for column in 0..<24 {
                delta.append(
                    2 * (0..<8).reduce(0) { $0 + b[row * 8 + $1] * a[$1 * 24 + column] })
            }
        }
        func norm(_ values: [Float]) -> Float { values.reduce(0) { $0 + $1 * $1 }.squareRoot() }
        let ratio = norm(delta) / norm(weight)
        #expect((0.2...0.5).contains(ratio), "\(ratio)")
    }

    @Test func adaptersDifferAndAreDeterministic() async throws {
        let folder = try TemporaryFolder()
        let model = try await makeModel(in: folder)
        var files: [[Data]] = []
        for name in ["a", "b"] {
            let out = folder.url.appending(path: name)
            try await SyntheticAdapters.write(
                modelDirectory: model, count: 2, ranks: [3], targets: ["q_proj", "v_proj"],
                to: out, seed: 4)
            files.append(
                try ["adapter-0000", "adapter-0001"].map {
                    try Data(contentsOf: out.appending(path: "\($0)/adapter_model.safetensors"))
                })
        }
        #expect(files[0] == files[1])
        #expect(files[0][0] != files[0][1])
    }

    @Test(arguments: [
        (1, [4], ["q_proj", "embed_tokens"], "'embed_tokens'"), (0, [4], ["all"], "count 0"),
        (1, [4, 0], ["all"], "rank 0"), (1, [], ["all"], "rank"), (1, [4], [], "target"),
    ])
    func badArgumentsAreNamed(
        count: Int, ranks: [Int], targets: [String], named: String
    ) async throws {
        let folder = try TemporaryFolder()
        let model = try await makeModel(in: folder)
        let error = await #expect(throws: SynthError.self) {
            try await SyntheticAdapters.write(
                modelDirectory: model, count: count, ranks: ranks, targets: targets,
                to: folder.url.appending(path: "out"), seed: 1)
        }
        #expect(error?.description.contains(named) == true)
        #expect(try folder.contents() == ["model"])
    }

    @Test(arguments: [
        ("{}", "model_type"), ("[]", "not a JSON object"), ("{", "not a JSON object"),
        ("{\"model_type\":\"gpt2\"}", "'gpt2'"),
        ("{\"model_type\":\"llama\",\"hidden_size\":-4}", "hidden_size"),
    ])
    func badModelFoldersAreNamed(configuration: String, named: String) async throws {
        let folder = try TemporaryFolder()
        try Data(configuration.utf8).write(to: folder.url.appending(path: "config.json"))
        let error = await #expect(throws: SynthError.self) {
            try await SyntheticAdapters.write(
                modelDirectory: folder.url, count: 1, ranks: [1], targets: ["all"],
                to: folder.url.appending(path: "out"), seed: 1)
        }
        #expect(error?.description.contains(named) == true)
    }
}
