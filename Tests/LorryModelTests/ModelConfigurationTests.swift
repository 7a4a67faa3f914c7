import Foundation
import LorryModel
import Testing

@Suite struct ModelConfigurationTests {
    private func read(
        _ changes: [String: Any?] = [:], generation: [String: Any]? = nil
    ) throws -> ModelConfiguration {
        let folder = try TestFolder()
        try folder.write(TinyModel.configuration(changes), "config.json")
        if let generation { try folder.write(generation, "generation_config.json") }
        return try ModelConfiguration(directory: folder.url)
    }

    private func refusal(
        _ changes: [String: Any?], generation: [String: Any]? = nil
    ) -> String {
        let error = #expect(throws: ModelError.self) {
            try read(changes, generation: generation)
        }
        return error?.message ?? ""
    }

    @Test func readsTheShape() throws {
        let value = try read()
        #expect(value.architecture == .llama)
        #expect(value.headDim == 4)
        #expect(value.queryWidth == 16)
        #expect(value.kvWidth == 8)
        #expect(value.normEpsilon == 1e-5)
        #expect(value.endTokenIDs == [1])
        #expect(value.biasedSites.isEmpty)
        #expect(value.slidingWindows == [nil, nil])
        #expect(try read(["head_dim": 8]).queryWidth == 32)
        #expect(value.outFeatures(of: .attentionInput) == 32)
        #expect(value.columnStart(of: .value) == 24)
    }

    @Test func oldAndNewFormsOfRotationAreEqual() throws {
        let old = try read(["rope_theta": 500.0])
        let new = try read([
            "rope_theta": nil, "rope_parameters": ["rope_theta": 500.0, "rope_type": "default"],
        ])
        #expect(old.rope == new.rope)
        #expect(old.rope == RopeConfiguration(theta: 500))
        let llama3: [String: Any] = [
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        ]
        let oldScaled = try read([
            "rope_theta": 500.0,
            "rope_scaling": llama3.merging(["type": "llama3"]) { $1 },
        ])
        let newScaled = try read([
            "rope_theta": nil,
            "rope_parameters": llama3.merging(["rope_type": "llama3", "rope_theta": 500.0]) { $1 },
        ])
        #expect(oldScaled.rope == newScaled.rope)
        #expect(
            oldScaled.rope.scaling
                == .llama3(
                    factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4,
                    originalMaximumPositions: 64))
        #expect(
            try read(["rope_scaling": ["type": "linear", "factor": 2.0]]).rope.scaling
                == .linear(factor: 2))
        #expect(try read(["rope_scaling": NSNull()]).rope == RopeConfiguration(theta: 10_000))
    }

    @Test func knowsEachArchitecturesDefaults() throws {
        let bare: [String: Any?] = [
            "num_key_value_heads": nil, "max_position_embeddings": nil, "architectures": nil,
            "rms_norm_eps": nil,
        ]
        func of(_ type: String) throws -> ModelConfiguration {
            try read(
                bare.merging([
                    "model_type": type, "num_attention_heads": 32, "head_dim": 4,
                ]) { $1 })
        }
        #expect(try of("llama").kvHeadCount == 32)
        #expect(try of("llama").maximumPositions == 2048)
        #expect(try of("mistral").kvHeadCount == 8)
        #expect(try of("mistral").slidingWindows == [4096, 4096])
        #expect(try of("qwen2").kvHeadCount == 32)
        #expect(try of("qwen2").biasedSites == [.query, .key, .value])
        #expect(try of("qwen2").normEpsilon == 1e-6)
    }

    @Test func biasesFollowTheFlags() throws {
        #expect(
            try read(["attention_bias": true]).biasedSites == [.query, .key, .value, .output])
        #expect(try read(["mlp_bias": true]).biasedSites == [.gate, .up, .down])
    }

    @Test func slidingWindows() throws {
        let mistral: [String: Any?] = [
            "model_type": "mistral", "architectures": ["MistralForCausalLM"],
        ]
        #expect(
            try read(mistral.merging(["sliding_window": 8]) { $1 }).slidingWindows == [8, 8])
        #expect(
            try read(mistral.merging(["sliding_window": NSNull()]) { $1 }).slidingWindows
                == [nil, nil])
        let qwen: [String: Any?] = [
            "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "sliding_window": 8,
        ]
        #expect(try read(qwen).slidingWindows == [nil, nil])
        let sliding = qwen.merging(["use_sliding_window": true, "max_window_layers": 1]) { $1 }
        #expect(try read(sliding).slidingWindows == [nil, 8])
        let typed = sliding.merging(["layer_types": ["sliding_attention", "full_attention"]]) { $1 }
        #expect(try read(typed).slidingWindows == [8, nil])
        #expect(
            refusal(sliding.merging(["layer_types": ["full_attention"]]) { $1 })
                .contains("layer_types"))
        #expect(
            refusal(sliding.merging(["layer_types": ["linear", "linear"]]) { $1 })
                .contains("layer_types"))
    }

    @Test func generationConfigurationAddsEndTokens() throws {
        #expect(try read(generation: ["eos_token_id": [2, 3]]).endTokenIDs == [1, 2, 3])
        #expect(try read(generation: ["eos_token_id": 5]).endTokenIDs == [1, 5])
        #expect(try read(generation: [:]).endTokenIDs == [1])
        #expect(refusal([:], generation: ["eos_token_id": 32]).contains("eos_token_id 32"))
        #expect(refusal([:], generation: ["eos_token_id": "x"]).contains("generation_config.json"))
    }

    @Test func refusalsNameFileAndField() {
        let cases: [(String, Any?)] = [
            ("model_type", "gemma"), ("model_type", nil), ("architectures", ["Other"]),
            ("hidden_act", "gelu"), ("quantization_config", ["bits": 4]), ("hidden_size", nil),
            ("hidden_size", -1), ("hidden_size", 1.5), ("hidden_size", "16"),
            ("num_key_value_heads", 3), ("head_dim", 5), ("num_attention_heads", 5),
            ("vocab_size", 0), ("intermediate_size", nil), ("num_hidden_layers", nil),
            ("rope_theta", "x"), ("rope_theta", 0), ("rope_theta", -1), ("rms_norm_eps", -1),
            ("rope_scaling", "linear"), ("attention_bias", 1), ("partial_rotary_factor", 0.5),
            ("tie_word_embeddings", "yes"), ("eos_token_id", "x"), ("eos_token_id", [1.5]),
            ("num_hidden_layers", 2_000_000_000),
        ]
        for (field, value) in cases {
            var changes: [String: Any?] = [field: value]
            if field == "num_attention_heads" {
                changes.updateValue(1, forKey: "num_key_value_heads")
            }
            let message = refusal(changes)
            #expect(
                message.contains("config.json") && message.contains(field),
                "\(field): \(message)")
        }
        for type in ["yarn", "dynamic", "longrope"] {
            let message = refusal(["rope_scaling": ["rope_type": type, "factor": 2.0]])
            #expect(message.contains("rope_scaling") && message.contains("'\(type)'"))
        }
        #expect(refusal(["rope_scaling": ["type": "linear"]]).contains("factor"))
        #expect(refusal(["eos_token_id": -1]).contains("eos_token_id -1"))
    }

    @Test func filesThatAreNoConfigurationAreNamed() throws {
        let folder = try TestFolder()
        #expect(throws: ModelError.self) { try ModelConfiguration(directory: folder.url) }
        for text in ["", "[]", "{", "{\"a\":1,\"a\":2}"] {
            try folder.write(Data(text.utf8), "config.json")
            let error = #expect(throws: ModelError.self) {
                try ModelConfiguration(directory: folder.url)
            }
            #expect(error?.message.contains("config.json") == true)
        }
    }

    @Test func inverseFrequencies() {
        func near(_ a: [Float], _ b: [Float]) -> Bool {
            a.count == b.count && zip(a, b).allSatisfy { abs($0 - $1) <= 1e-6 * max(1, abs($1)) }
        }
        // 10000^(-i/8) for i = 0, 2, 4, 6.
        let plain = RopeConfiguration(theta: 10_000).inverseFrequencies(headDim: 8)
        #expect(near(plain, [1, 0.1, 0.01, 0.001]))
        let linear = RopeConfiguration(theta: 10_000, scaling: .linear(factor: 4))
        #expect(near(linear.inverseFrequencies(headDim: 8), [0.25, 0.025, 0.0025, 0.00025]))
        // Wavelengths 6.28, 62.8, 628.3, 6283 against 64/4 = 16 and 64/1 = 64: the first is kept,
        // the second is on the ramp (64 / 62.83 - 1) / 3 = 0.0062, the others are divided by 8.
        let llama3 = RopeConfiguration(
            theta: 10_000,
            scaling: .llama3(
                factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4,
                originalMaximumPositions: 64))
        let smooth = (64 / (2 * Float.pi / 0.1) - 1) / 3
        #expect(
            near(
                llama3.inverseFrequencies(headDim: 8),
                [1, (1 - smooth) * 0.0125 + smooth * 0.1, 0.00125, 0.000125]))
    }
}
