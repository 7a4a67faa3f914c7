import Foundation

/// Writes Hugging Face model folders with random weights: of real shape and size, of no sense.
public enum SyntheticModel {
    /// Bytes of a weight file at most, before the next one is begun; as transformers splits.
    public static let defaultShardByteCount = 5_000_000_000

    /// Standard deviation of every weight but the norms, which are 1. With it activations neither
    /// vanish nor grow out of range, and layers outweigh the embedding, so that greedy text does
    /// not just repeat its last token.
    static let initializerRange = 0.02

    /// Writes `folder`: weights in bf16, config, generation config and a byte-level BPE tokenizer
    /// of exactly the shape's vocabulary size. The same shape and seed give the same bytes.
    /// - Throws: `SynthError` for a shape that cannot be, or when `folder` is not free.
    /// - Complexity: O(parameters); memory does not grow with them.
    public static func write(
        shape: ModelShape, to folder: URL, seed: UInt64,
        shardByteCount: Int = defaultShardByteCount, progress: SynthProgress = { _, _ in }
    ) async throws {
        let tokenizer = try SyntheticTokenizer(vocabularySize: shape.vocabularySize)
        guard shape.kvHeadCount > 0, shape.headCount % shape.kvHeadCount == 0,
            shape.headDim > 0, shape.headDim % 2 == 0
        else {
            throw SynthError("shape '\(shape.name)': heads do not divide")
        }
        let shards = split(tensors(shape), byteCount: shardByteCount)
        let total = shards.joined().reduce(0) { $0 + $1.byteCount }
        try await OutputFolder.write(folder) { temporary in
            let writer = SafetensorsWriter(seed: seed)
            var written = 0
            for (index, shard) in shards.enumerated() {
                let name = fileName(index, of: shards.count)
                try await writer.write(shard, to: temporary.appending(path: name)) {
                    written += $0
                    progress(written, total)
                }
            }
            if shards.count > 1 {
                try OutputFolder.writeJSON(
                    weightIndex(shards, total: total),
                    to: temporary.appending(path: "model.safetensors.index.json"))
            }
            try tokenizer.write(to: temporary, maximumLength: shape.maximumPositions)
            try OutputFolder.writeJSON(
                configuration(shape), to: temporary.appending(path: "config.json"))
            try OutputFolder.writeJSON(
                [
                    "bos_token_id": SyntheticTokenizer.bosID,
                    "eos_token_id": SyntheticTokenizer.eosID, "do_sample": false,
                ], to: temporary.appending(path: "generation_config.json"))
        }
    }

    static func tensors(_ shape: ModelShape) -> [TensorSpec] {
        func random(_ name: String, _ size: Int...) -> TensorSpec {
            TensorSpec(
                name: name, shape: size, type: .bf16,
                fill: .normal(deviation: Float(initializerRange)))
        }
        func norm(_ name: String) -> TensorSpec {
            TensorSpec(name: name, shape: [shape.hiddenSize], type: .bf16, fill: .constant(1))
        }
        var tensors = [
            random("model.embed_tokens.weight", shape.vocabularySize, shape.hiddenSize)
        ]
        for layer in 0..<shape.layerCount {
            let prefix = "model.layers.\(layer)."
            tensors.append(norm(prefix + "input_layernorm.weight"))
            for linear in LinearLayer.allCases {
                if linear == .gate {
                    tensors.append(norm(prefix + "post_attention_layernorm.weight"))
                }
                let (outFeatures, inFeatures) = linear.size(in: shape.layers)
                tensors.append(random(prefix + linear.path + ".weight", outFeatures, inFeatures))
                if shape.architecture == .qwen2, [.query, .key, .value].contains(linear) {
                    tensors.append(random(prefix + linear.path + ".bias", outFeatures))
                }
            }
        }
        tensors.append(norm("model.norm.weight"))
        if !shape.tiesEmbeddings {
            tensors.append(random("lm_head.weight", shape.vocabularySize, shape.hiddenSize))
        }
        return tensors
    }

    private static func split(_ tensors: [TensorSpec], byteCount limit: Int) -> [[TensorSpec]] {
        var shards: [[TensorSpec]] = []
        var size = 0
        for tensor in tensors {
            if shards.isEmpty || size + tensor.byteCount > limit {
                shards.append([])
                size = 0
            }
            shards[shards.count - 1].append(tensor)
            size += tensor.byteCount
        }
        return shards
    }

    private static func fileName(_ index: Int, of count: Int) -> String {
        func padded(_ number: Int) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
        }
        return count == 1
            ? "model.safetensors"
            : "model-\(padded(index + 1))-of-\(padded(count)).safetensors"
    }

    private static func weightIndex(_ shards: [[TensorSpec]], total: Int) -> [String: Any] {
        var weightMap: [String: String] = [:]
        for (index, shard) in shards.enumerated() {
            for tensor in shard { weightMap[tensor.name] = fileName(index, of: shards.count) }
        }
        return ["metadata": ["total_size": total], "weight_map": weightMap]
    }

    private static func configuration(_ shape: ModelShape) -> [String: Any] {
        var configuration: [String: Any] = [
            "model_type": shape.architecture.rawValue,
            "hidden_size": shape.hiddenSize,
            "intermediate_size": shape.intermediateSize,
            "num_hidden_layers": shape.layerCount,
            "num_attention_heads": shape.headCount,
            "num_key_value_heads": shape.kvHeadCount,
            "vocab_size": shape.vocabularySize,
            "max_position_embeddings": shape.maximumPositions,
            "rms_norm_eps": shape.normEpsilon,
            "rope_theta": shape.ropeTheta,
            "tie_word_embeddings": shape.tiesEmbeddings,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "initializer_range": initializerRange,
            "torch_dtype": "bfloat16",
            "use_cache": true,
            "bos_token_id": SyntheticTokenizer.bosID,
            "eos_token_id": SyntheticTokenizer.eosID,
        ]
        switch shape.architecture {
        case .llama:
            configuration["architectures"] = ["LlamaForCausalLM"]
            configuration["head_dim"] = shape.headDim
            configuration["attention_bias"] = false
            configuration["mlp_bias"] = false
        case .qwen2:
            configuration["architectures"] = ["Qwen2ForCausalLM"]
            configuration["use_sliding_window"] = false
        }
        configuration["rope_scaling"] =
            shape.ropeScaling.map { scaling -> [String: Any] in
                [
                    "rope_type": "llama3", "factor": scaling.factor,
                    "low_freq_factor": scaling.lowFrequencyFactor,
                    "high_freq_factor": scaling.highFrequencyFactor,
                    "original_max_position_embeddings": scaling.originalMaximumPositions,
                ]
            } ?? NSNull()
        return configuration
    }
}

extension ModelShape {
    /// Numbers in all weights together; tied embeddings count once.
    public var parameterCount: Int {
        SyntheticModel.tensors(self).reduce(0) { $0 + $1.elementCount }
    }
}
