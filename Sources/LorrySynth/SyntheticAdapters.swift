import Foundation

/// Writes PEFT LoRA adapters with random weights for a model folder.
public enum SyntheticAdapters {
    /// Writes `folder/adapter-0000`, `adapter-0001`, …, each as peft's `save_pretrained` would,
    /// with `lora_alpha` twice the rank. Their deltas are about a third as large as what the base
    /// computes, so that answers change and stay finite.
    /// - Parameters:
    ///   - modelDirectory: of Llama, Mistral or Qwen2 architecture; only config.json is read.
    ///   - ranks: taken in turn, adapter by adapter.
    ///   - targets: names of linear layers such as `q_proj`, or `all` alone for all seven.
    /// - Throws: `SynthError` naming the target, rank or field; nothing is left behind.
    public static func write(
        modelDirectory: URL, count: Int, ranks: [Int], targets: [String], to folder: URL,
        seed: UInt64, type: SynthElementType = .bf16, progress: SynthProgress = { _, _ in }
    ) async throws {
        guard count > 0 else { throw SynthError("count \(count) is not positive") }
        guard !ranks.isEmpty else { throw SynthError("no rank is given") }
        if let rank = ranks.first(where: { $0 < 1 }) {
            throw SynthError("rank \(rank) is not positive")
        }
        let layers = try linearLayers(targets)
        let model = try BaseConfiguration(directory: modelDirectory)
        let plans = (0..<count).map { index in
            Plan(
                index: index, rank: ranks[index % ranks.count],
                tensors: tensors(
                    model, layers: layers, rank: ranks[index % ranks.count], type: type))
        }
        let total = plans.reduce(0) { $0 + $1.tensors.reduce(0) { $0 + $1.byteCount } }
        try await OutputFolder.write(folder) { temporary in
            var written = 0
            for plan in plans {
                let directory = temporary.appending(path: plan.folderName)
                try FileManager.default.createDirectory(
                    at: directory, withIntermediateDirectories: false)
                let adapterSeed = CounterRandom(seed: seed, stream: plan.folderName)[0]
                try await SafetensorsWriter(seed: adapterSeed).write(
                    plan.tensors, to: directory.appending(path: "adapter_model.safetensors")
                ) {
                    written += $0
                    progress(written, total)
                }
                try OutputFolder.writeJSON(
                    configuration(model, rank: plan.rank, layers: layers),
                    to: directory.appending(path: "adapter_config.json"))
            }
        }
    }

    private struct Plan {
        let index: Int
        let rank: Int
        let tensors: [TensorSpec]

        var folderName: String {
            let digits = String(index)
            return "adapter-" + String(repeating: "0", count: max(0, 4 - digits.count)) + digits
        }
    }

    private static func linearLayers(_ targets: [String]) throws(SynthError) -> [LinearLayer] {
        if targets == ["all"] { return LinearLayer.allCases }
        var layers: [LinearLayer] = []
        for target in targets {
            guard let layer = LinearLayer(rawValue: target) else {
                let known = LinearLayer.allCases.map(\.rawValue).joined(separator: ", ")
                throw SynthError("unknown target '\(target)'; known are all, \(known)")
            }
            if !layers.contains(layer) { layers.append(layer) }
        }
        guard !layers.isEmpty else { throw SynthError("no target is given") }
        return layers
    }

    private static func tensors(
        _ model: BaseConfiguration, layers: [LinearLayer], rank: Int, type: SynthElementType
    ) -> [TensorSpec] {
        (0..<model.layers.layerCount).flatMap { index in
            layers.flatMap { layer -> [TensorSpec] in
                let (outFeatures, inFeatures) = layer.size(in: model.layers)
                let name = "base_model.model.model.layers.\(index).\(layer.path)."
                // A as peft begins it: uniform with variance 1 / (3 · inFeatures), so that A x has
                // variance 1/3 for inputs of variance 1; B such that 2 B A x has a third of the
                // deviation initializerRange · √inFeatures of the base's W x.
                let deviation =
                    model.initializerRange * Double(inFeatures).squareRoot()
                    / (2 * (3 * Double(rank)).squareRoot())
                return [
                    TensorSpec(
                        name: name + "lora_A.weight", shape: [rank, inFeatures], type: type,
                        fill: .uniform(bound: 1 / Float(inFeatures).squareRoot())),
                    TensorSpec(
                        name: name + "lora_B.weight", shape: [outFeatures, rank], type: type,
                        fill: .normal(deviation: Float(deviation))),
                ]
            }
        }
    }

    /// The fields that peft 0.21 writes.
    private static func configuration(
        _ model: BaseConfiguration, rank: Int, layers: [LinearLayer]
    ) -> [String: Any] {
        let absent = [
            "alora_invocation_tokens", "arrow_config", "auto_mapping", "corda_config", "eva_config",
            "exclude_modules", "kasa_config", "layer_replication", "layers_pattern",
            "layers_to_transform", "lora_ga_config", "megatron_config", "modules_to_save",
            "monteclora_config", "revision", "target_parameters", "trainable_token_indices",
            "use_bdlora", "velora_config",
        ]
        var configuration: [String: Any] = [
            "alpha_pattern": [String: Any](),
            "base_model_name_or_path": model.name,
            "bias": "none",
            "ensure_weight_tying": false,
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "loftq_config": [String: Any](),
            "lora_alpha": 2 * rank,
            "lora_bias": false,
            "lora_dropout": 0.0,
            "megatron_core": "megatron.core",
            "peft_type": "LORA",
            "peft_version": "0.21.2",
            "qalora_group_size": 16,
            "r": rank,
            "rank_pattern": [String: Any](),
            "target_modules": layers.map(\.rawValue),
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_qalora": false,
            "use_rslora": false,
        ]
        for name in absent { configuration[name] = NSNull() }
        return configuration
    }
}

/// What an adapter has to know of its base model.
struct BaseConfiguration {
    let name: String
    let layers: LayerShape
    let initializerRange: Double

    init(directory: URL) throws {
        let file = directory.appending(path: "config.json")
        let data: Data
        do {
            data = try Data(contentsOf: file)
        } catch {
            throw SynthError("cannot read \(file.path)")
        }
        guard let fields = try? JSONSerialization.jsonObject(with: data) as? [String: Any] else {
            throw SynthError("\(file.path) is not a JSON object")
        }
        func number(_ field: String, default fallback: Int? = nil) throws(SynthError) -> Int {
            if fields[field] == nil || fields[field] is NSNull, let fallback { return fallback }
            guard let value = fields[field] as? Int, (1...1_000_000_000).contains(value) else {
                throw SynthError("\(file.path): \(field) is missing or not a positive number")
            }
            return value
        }
        let architecture = fields["model_type"] as? String ?? ""
        guard ["llama", "mistral", "qwen2"].contains(architecture) else {
            throw SynthError("\(file.path): model_type '\(architecture)' is not supported")
        }
        let hiddenSize = try number("hidden_size")
        let headCount = try number("num_attention_heads")
        layers = LayerShape(
            layerCount: try number("num_hidden_layers"), hiddenSize: hiddenSize,
            headCount: headCount,
            kvHeadCount: try number("num_key_value_heads", default: headCount),
            headDim: try number("head_dim", default: max(1, hiddenSize / headCount)),
            intermediateSize: try number("intermediate_size"))
        initializerRange = fields["initializer_range"] as? Double ?? 0.02
        name = directory.standardizedFileURL.lastPathComponent
    }
}
