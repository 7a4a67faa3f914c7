import Foundation
import LorryTensor

/// AdaLoRA (arXiv 2303.10512): `y = W x + b + alpha / (init_r + 1e-5) · B ((E ⊙ A) x)`.
///
/// What training pruned is gone from the tensors, the divisor stays `init_r`. Tensors, as peft 0.21
/// saves them, with k the rank that is left, which may be 0:
///
///     base_model.model.<module>.lora_A  [k, inFeatures]
///     base_model.model.<module>.lora_B  [outFeatures, k]
///     base_model.model.<module>.lora_E  [k, 1]
struct AdaLoRAMethod: PEFTMethod {
    let peftTypes = ["ADALORA"]

    /// Fields of LoRA that AdaLoRA does not read, fields of its training, and those that it reads.
    private static let knownFields: Set<String> = [
        "alpha_pattern", "beta1", "beta2", "bias", "corda_config", "deltaT", "ensure_weight_tying",
        "eva_config", "fan_in_fan_out", "init_lora_weights", "init_r", "lora_alpha",
        "lora_dropout", "lora_ga_config", "megatron_core", "orth_reg_weight", "qalora_group_size",
        "r", "rank_pattern", "target_r", "tfinal", "tinit", "total_step", "use_rslora",
    ]

    private static let reasons = [
        "layer_replication":
            "layer_replication makes another base model of repeated layers and is not supported",
        "trainable_token_indices": "is not supported together with ADALORA",
        "use_dora": "is not supported together with ADALORA",
    ]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: Self.knownFields, reasons: Self.reasons)
        let rank = try source.integer("init_r") ?? 12
        let alpha = try source.number("lora_alpha") ?? 8
        // peft computes the divisor in single precision.
        let divisor = Double(Float(rank) + 1e-5)
        let scale = try source.scale("lora_alpha", (alpha > 0 ? alpha : Double(rank)) / divisor)
        let masks = try Self.masks(source)
        let bias = try SavedBiases(source, only: "lora_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "lora_E")
        for module in targets {
            try add(
                module, rank: masks[module.path] ?? rank, scale: scale, &tensors, &builder)
        }
        try bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "adalora"
    }

    private func add(
        _ module: BaseModule, rank expected: Int, scale: Float, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        if expected == 0 {
            for (name, shape) in [
                ("lora_A", [0, inFeatures]), ("lora_B", [outFeatures, 0]), ("lora_E", [0, 1]),
            ] {
                guard let tensor = tensors.take(module, name) else { continue }
                guard tensor.shape == shape else {
                    throw tensors.source.badTensor(
                        tensor.name, "has shape \(tensor.shape), expected \(shape)")
                }
            }
            return
        }
        let down = try tensors.require(module, "lora_A", shape: [nil, inFeatures])
        let rank = down.shape[0]
        try tensors.checkRank(rank, down, expected: [expected])
        let up = try tensors.require(module, "lora_B", shape: [outFeatures, rank])
        let values = try tensors.require(module, "lora_E", shape: [rank, 1])
        builder.addProduct(
            at: module, rank: rank,
            down: .scalingRows(.tensor(down), columns: inFeatures, by: .tensor(values)),
            up: .tensor(up), scale: scale)
    }

    /// The ranks that `rank_pattern` leaves, by module: masks under the names of `lora_E`.
    private static func masks(_ source: AdapterSource) throws(AdapterError) -> [String: Int] {
        let field = "rank_pattern"
        guard let value = source.present(field) else { return [:] }
        guard let object = value.objectValue else { throw source.bad(field, "is not an object") }
        var ranks: [String: Int] = [:]
        for (key, value) in object.members {
            guard let mask = value.arrayValue,
                mask.allSatisfy({ $0.boolValue != nil })
            else { throw source.bad("\(field).\(key)", "is not a list of true and false") }
            guard let end = key.range(of: ".lora_E", options: .backwards) else {
                throw source.bad("\(field).\(key)", "does not name a lora_E")
            }
            ranks[String(key[..<end.lowerBound])] = mask.count { $0.boolValue == true }
        }
        return ranks
    }
}
