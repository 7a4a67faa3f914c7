import Foundation

/// Writes PEFT adapters with random weights for a model folder.
public enum SyntheticAdapters {
    /// Writes `folder/adapter-0000`, `adapter-0001`, …, each as peft's `save_pretrained` would,
    /// of LoRA with `lora_alpha` twice the rank. Their deltas are about a third as large as what the base
    /// computes, so that answers change and stay finite.
    /// - Parameters:
    ///   - modelDirectory: of Llama, Mistral or Qwen2 architecture; only config.json is read.
    ///   - ranks: taken in turn, adapter by adapter.
    ///   - methods: taken in turn.
    ///   - targets: names of linear layers such as `q_proj`, or `all` alone for all seven.
    /// - Throws: `SynthError` naming the target, rank or field; nothing is left behind.
    public static func write(
        modelDirectory: URL, count: Int, ranks: [Int], methods: [SyntheticMethod] = [.lora],
        targets: [String], to folder: URL, seed: UInt64, type: SynthElementType = .bf16,
        progress: SynthProgress = { _, _ in }
    ) async throws {
        guard count > 0 else { throw SynthError("count \(count) is not positive") }
        guard !ranks.isEmpty else { throw SynthError("no rank is given") }
        if let rank = ranks.first(where: { $0 < 1 }) {
            throw SynthError("rank \(rank) is not positive")
        }
        let layers = try linearLayers(targets)
        let model = try BaseConfiguration(directory: modelDirectory)
        guard !methods.isEmpty else { throw SynthError("no method is given") }
        let plans = (0..<count).map { index in
            let (rank, method) = (ranks[index % ranks.count], methods[index % methods.count])
            return Plan(
                index: index, rank: rank, method: method,
                tensors: tensors(model, method, layers: layers, rank: rank, type: type))
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
                    configuration(model, plan, layers: layers),
                    to: directory.appending(path: "adapter_config.json"))
            }
        }
    }

    private struct Plan {
        let index: Int
        let rank: Int
        let method: SyntheticMethod
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
        _ model: BaseConfiguration, _ method: SyntheticMethod, layers: [LinearLayer], rank: Int,
        type: SynthElementType
    ) -> [TensorSpec] {
        let sites = (0..<model.layers.layerCount).flatMap { index in
            layers.map { layer in
                let (outFeatures, inFeatures) = layer.size(in: model.layers)
                return SyntheticMethod.Site(
                    path: "base_model.model.model.layers.\(index).\(layer.path).",
                    outFeatures: outFeatures, inFeatures: inFeatures, rank: rank,
                    weightDeviation: model.initializerRange, type: type)
            }
        }
        return sites.flatMap { method.tensors(at: $0) }
            + method.sharedTensors(model.layers, sites: sites, rank: rank, type: type)
    }

    /// The fields of an `adapter_config.json` that say something; for LoRA all that peft 0.21 writes.
    private static func configuration(
        _ model: BaseConfiguration, _ plan: Plan, layers: [LinearLayer]
    ) -> [String: Any] {
        var configuration: [String: Any] = [
            "base_model_name_or_path": model.name, "inference_mode": true,
            "peft_type": plan.method.peftType, "peft_version": "0.21.2",
            "task_type": "CAUSAL_LM",
        ]
        if plan.method == .lora || plan.method == .dora {
            configuration.merge(neutralLoRAFields) { own, _ in own }
        }
        if plan.method == .lnTuning {
            configuration["target_modules"] = [
                "input_layernorm", "post_attention_layernorm", "norm",
            ]
        } else if plan.method.hasTargets {
            configuration["target_modules"] = layers.map(\.rawValue)
        }
        configuration.merge(plan.method.fields(model.layers, rank: plan.rank)) { $1 }
        return configuration
    }

    private static var neutralLoRAFields: [String: Any] {
        let absent = [
            "alora_invocation_tokens", "arrow_config", "auto_mapping", "corda_config", "eva_config",
            "exclude_modules", "kasa_config", "layer_replication", "layers_pattern",
            "layers_to_transform", "lora_ga_config", "megatron_config", "modules_to_save",
            "monteclora_config", "revision", "target_parameters", "trainable_token_indices",
            "use_bdlora", "velora_config",
        ]
        var fields: [String: Any] = [
            "alpha_pattern": [String: Any](),
            "bias": "none",
            "ensure_weight_tying": false,
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "loftq_config": [String: Any](),
            "lora_bias": false,
            "lora_dropout": 0.0,
            "megatron_core": "megatron.core",
            "qalora_group_size": 16,
            "rank_pattern": [String: Any](),
            "use_dora": false,
            "use_qalora": false,
            "use_rslora": false,
        ]
        for name in absent { fields[name] = NSNull() }
        return fields
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
