import Foundation
import LorrySynth
import Synchronization
import Testing

@Suite struct SyntheticModelTests {
    static func tinyShape() -> ModelShape {
        ModelShape(
            name: "tiny", hiddenSize: 24, layerCount: 2, heads: (3, 1, 8), intermediateSize: 40,
            vocabularySize: 300, positions: (128, 10000))
    }

    @Test func weightsHaveTheShapesAndScaleOfTheirConfiguration() async throws {
        let folder = try TemporaryFolder()
        let model = folder.url.appending(path: "model")
        try await SyntheticModel.write(shape: Self.tinyShape(), to: model, seed: 1)
        let tensors = try SafetensorsReader(model.appending(path: "model.safetensors")).tensors
        #expect(tensors.count == 2 + 2 * 9)
        let expected: [String: [Int]] = [
            "model.embed_tokens.weight": [300, 24],
            "model.norm.weight": [24],
            "model.layers.0.input_layernorm.weight": [24],
            "model.layers.1.self_attn.q_proj.weight": [24, 24],
            "model.layers.1.self_attn.k_proj.weight": [8, 24],
            "model.layers.1.self_attn.v_proj.weight": [8, 24],
            "model.layers.1.self_attn.o_proj.weight": [24, 24],
            "model.layers.1.post_attention_layernorm.weight": [24],
            "model.layers.1.mlp.gate_proj.weight": [40, 24],
            "model.layers.1.mlp.up_proj.weight": [40, 24],
            "model.layers.1.mlp.down_proj.weight": [24, 40],
        ]
        for (name, shape) in expected {
            #expect(tensors[name]?.shape == shape, "\(name)")
            #expect(tensors[name]?.type == "BF16")
        }
        #expect(tensors["model.norm.weight"]?.values.allSatisfy { $0 == 1 } == true)
        let embedding = try #require(tensors["model.embed_tokens.weight"]).values
        let mean = embedding.reduce(0, +) / Float(embedding.count)
        let variance = embedding.reduce(0) { $0 + $1 * $1 } / Float(embedding.count)
        #expect(abs(mean) < 0.001)
        #expect(abs(variance.squareRoot() - 0.02) < 0.001)
        #expect(Set(embedding).count > 1000)
    }

    @Test func configurationsTellWhatTheShapeSays() async throws {
        let folder = try TemporaryFolder()
        var shape = Self.tinyShape()
        shape.ropeScaling = .init(factor: 32)
        try await SyntheticModel.write(
            shape: shape, to: folder.url.appending(path: "llama"), seed: 1)
        let llama = try jsonObject(folder.url.appending(path: "llama/config.json"))
        #expect(llama["architectures"] as? [String] == ["LlamaForCausalLM"])
        #expect(llama["head_dim"] as? Int == 8)
        #expect(llama["num_key_value_heads"] as? Int == 1)
        let scaling = try #require(llama["rope_scaling"] as? [String: Any])
        #expect(scaling["rope_type"] as? String == "llama3")
        #expect(scaling["factor"] as? Double == 32)
        #expect(scaling["original_max_position_embeddings"] as? Int == 8192)

        shape = Self.tinyShape()
        shape.architecture = .qwen2
        shape.tiesEmbeddings = false
        let qwen = folder.url.appending(path: "qwen")
        try await SyntheticModel.write(shape: shape, to: qwen, seed: 1)
        let configuration = try jsonObject(qwen.appending(path: "config.json"))
        #expect(configuration["model_type"] as? String == "qwen2")
        #expect(configuration["rope_scaling"] is NSNull)
        #expect(configuration["tie_word_embeddings"] as? Bool == false)
        let tensors = try SafetensorsReader(qwen.appending(path: "model.safetensors")).tensors
        #expect(tensors["model.layers.0.self_attn.k_proj.bias"]?.shape == [8])
        #expect(tensors["model.layers.0.self_attn.o_proj.bias"] == nil)
        #expect(tensors["lm_head.weight"]?.shape == [300, 24])
    }

    @Test func bytesDependOnTheSeedAlone() async throws {
        let folder = try TemporaryFolder()
        var files: [Data] = []
        for (name, seed) in [("a", 7 as UInt64), ("b", 7), ("c", 8)] {
            let model = folder.url.appending(path: name)
            try await SyntheticModel.write(shape: Self.tinyShape(), to: model, seed: seed)
            files.append(try Data(contentsOf: model.appending(path: "model.safetensors")))
        }
        #expect(files[0] == files[1])
        #expect(files[0] != files[2])
    }

    @Test func largeModelsAreSplitAndIndexed() async throws {
        let folder = try TemporaryFolder()
        let shape = Self.tinyShape()
        let whole = folder.url.appending(path: "whole")
        let split = folder.url.appending(path: "split")
        let calls = Mutex<[[Int]]>([])
        try await SyntheticModel.write(shape: shape, to: whole, seed: 3)
        try await SyntheticModel.write(shape: shape, to: split, seed: 3, shardByteCount: 15000) {
            written, total in calls.withLock { $0.append([written, total]) }
        }
        let index = try jsonObject(split.appending(path: "model.safetensors.index.json"))
        let weightMap = try #require(index["weight_map"] as? [String: String])
        let expected = try SafetensorsReader(whole.appending(path: "model.safetensors")).tensors
        #expect(Set(weightMap.keys) == Set(expected.keys))
        var seen = 0
        for file in Set(weightMap.values) {
            let tensors = try SafetensorsReader(split.appending(path: file)).tensors
            #expect(tensors.values.reduce(0) { $0 + $1.bytes.count } <= 15000)
            for (name, tensor) in tensors {
                #expect(weightMap[name] == file)
                #expect(tensor.bytes == expected[name]?.bytes)
                seen += tensor.bytes.count
            }
        }
        #expect(weightMap.values.contains("model-00001-of-00003.safetensors"))
        #expect((index["metadata"] as? [String: Int])?["total_size"] == seen)
        let progress = calls.withLock { $0 }
        #expect(progress.last == [seen, seen])
        #expect(zip(progress, progress.dropFirst()).allSatisfy { $0[0] < $1[0] })
    }

    @Test func nothingIsOverwrittenOrLeftBehind() async throws {
        let folder = try TemporaryFolder()
        let taken = folder.url.appending(path: "taken")
        try FileManager.default.createDirectory(at: taken, withIntermediateDirectories: true)
        try Data("mine".utf8).write(to: taken.appending(path: "file"))
        await #expect(throws: SynthError.self) {
            try await SyntheticModel.write(shape: Self.tinyShape(), to: taken, seed: 1)
        }
        var impossible = Self.tinyShape()
        impossible.vocabularySize = 20
        await #expect(throws: SynthError.self) {
            try await SyntheticModel.write(
                shape: impossible, to: folder.url.appending(path: "x"), seed: 1)
        }
        let cancelled = Task { [url = folder.url] in
            withUnsafeCurrentTask { $0?.cancel() }
            try await SyntheticModel.write(
                shape: Self.tinyShape(), to: url.appending(path: "y"), seed: 1)
        }
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        #expect(try folder.contents() == ["taken"])
        #expect(try Data(contentsOf: taken.appending(path: "file")) == Data("mine".utf8))

        let empty = folder.url.appending(path: "empty")
        try FileManager.default.createDirectory(at: empty, withIntermediateDirectories: true)
        try await SyntheticModel.write(shape: Self.tinyShape(), to: empty, seed: 1)
        #expect(try folder.contents() == ["empty", "taken"])
    }

    @Test(arguments: [
        ("smollm2-135m", 134_515_008), ("qwen2.5-0.5b", 494_032_768),
        ("llama-3.2-1b", 1_235_814_400), ("llama-3.1-8b", 8_030_261_248),
    ])
    func presetsHaveTheParameterCountsOfTheirModels(name: String, count: Int) throws {
        #expect(try ModelShape.named(name).parameterCount == count)
    }

    @Test func anUnknownShapeIsNamed() {
        let error = #expect(throws: SynthError.self) { try ModelShape.named("gpt-9") }
        #expect(error?.description.contains("'gpt-9'") == true)
        #expect(error?.description.contains("llama-3.2-1b") == true)
    }
}
