/// The fields of a LoRA `adapter_config.json` that change what is computed.
///
/// A field that Lorry does not know and that is set to anything but a neutral value is refused: an
/// option that is not understood could change the answer.
struct LoRAOptions {
    enum Bias: String {
        case none
        case all
        case adaptedOnly = "lora_only"
    }

    let rank: Int
    let alpha: Double
    let isRankStabilized: Bool
    /// `lora_bias`: the B matrices have biases.
    let hasDeltaBias: Bool
    let bias: Bias
    private let rankOverrides: ModuleOverrides
    private let alphaOverrides: ModuleOverrides

    init(_ source: AdapterSource) throws(AdapterError) {
        try Self.refuseUnsupported(source)
        rank = try Self.integer("r", source) ?? 8
        alpha = try Self.number("lora_alpha", source) ?? 8
        isRankStabilized = try Self.flag("use_rslora", source)
        hasDeltaBias = try Self.flag("lora_bias", source)
        // Conv1D bases store their weight transposed; the adapter's own tensors never are.
        _ = try Self.flag("fan_in_fan_out", source)
        let name = source.configuration["bias"].flatMap { $0.isNull ? nil : $0 } ?? .string("none")
        guard let bias = name.stringValue.flatMap(Bias.init) else {
            throw source.bad("bias", "is not one of none, all, lora_only")
        }
        self.bias = bias
        rankOverrides = try ModuleOverrides("rank_pattern", source: source)
        alphaOverrides = try ModuleOverrides("alpha_pattern", source: source)
    }

    /// `s`, for a module whose tensors have the given rank.
    ///
    /// peft sorts the keys of `rank_pattern` when it saves, so that of several patterns that match
    /// another may have won in training: the tensors' rank must be that of any of them.
    func scaling(
        _ path: String, rank: Int, tensor: String, _ source: AdapterSource
    ) throws(AdapterError) -> Float {
        let overrides = try rankOverrides.values(for: path)
        let expected = overrides.isEmpty ? [Double(self.rank)] : overrides
        guard expected.contains(Double(rank)) else {
            let wanted = expected.map { Int(exactly: $0).map(String.init) ?? "\($0)" }
                .joined(separator: " or ")
            throw source.badTensor(tensor, "has rank \(rank), adapter_config.json says \(wanted)")
        }
        let alpha = try alphaOverrides.values(for: path).first ?? self.alpha
        let divisor = isRankStabilized ? Double(rank).squareRoot() : Double(rank)
        let scaling = Float(alpha / divisor)
        guard scaling.isFinite else { throw source.bad("lora_alpha", "\(alpha) is too large") }
        return scaling
    }

    // MARK: Fields

    /// Fields that change nothing when an adapter is served, or that are read elsewhere.
    private static let neutralFields: Set<String> = [
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying",
        "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights",
        "layers_pattern", "layers_to_transform", "lora_alpha", "lora_bias", "lora_dropout",
        "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern",
        "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
        // Read only where init_lora_weights names the method they configure.
        "corda_config", "loftq_config", "lora_ga_config",
    ]

    private static let unsupportedFields: [String: String] = [
        "use_dora": "DoRA is not supported",
        "use_qalora": "QALoRA is not supported",
        "use_bdlora": "BD-LoRA is not supported",
        "kasa_config": "KaSA is not supported",
        "alora_invocation_tokens": "activated LoRA is not supported",
        "layer_replication": "layer replication is not supported",
        "target_parameters": "parameters as targets are not supported",
        "trainable_token_indices": "trainable tokens are not supported",
        "modules_to_save": "replaced modules are not supported",
        "arrow_config": "Arrow routing is not supported",
        "megatron_config": "Megatron layers are not supported",
        "monteclora_config": "MonteCLoRA is not supported",
        "velora_config": "VeLoRA is not supported",
    ]

    private static func refuseUnsupported(_ source: AdapterSource) throws(AdapterError) {
        for (field, value) in source.configuration.members
        where !neutralFields.contains(field) && !value.isNeutral {
            throw source.unsupported(
                field,
                unsupportedFields[field]
                    ?? "is not known, and an option that is not understood could change the answer")
        }
        try refuseInitialization(source)
        if let task = source.configuration["task_type"], !task.isNull {
            guard ["CAUSAL_LM", "FEATURE_EXTRACTION"].contains(task.stringValue) else {
                throw source.unsupported(
                    "task_type", "\(task.stringValue ?? "it") is not CAUSAL_LM")
            }
        }
    }

    /// Some initializations change the base's weights, and the adapter is a delta to the changed
    /// ones.
    private static func refuseInitialization(_ source: AdapterSource) throws(AdapterError) {
        guard let field = source.configuration["init_lora_weights"], !field.isNull,
            field.boolValue == nil
        else { return }
        let plain = ["gaussian", "eva", "orthogonal", "mica"]
        guard let name = field.stringValue?.lowercased() else {
            throw source.bad("init_lora_weights", "is neither true, false nor a name")
        }
        guard plain.contains(name) else {
            throw source.unsupported(
                "init_lora_weights",
                "'\(name)' changes the base's weights; convert the adapter with peft's "
                    + "path_initial_model_for_weight_conversion")
        }
    }

    private static func present(_ field: String, _ source: AdapterSource) -> StrictJSON? {
        source.configuration[field].flatMap { $0.isNull ? nil : $0 }
    }

    private static func flag(_ field: String, _ source: AdapterSource) throws(AdapterError) -> Bool
    {
        guard let value = present(field, source) else { return false }
        guard let flag = value.boolValue else { throw source.bad(field, "is not true or false") }
        return flag
    }

    private static func integer(_ field: String, _ source: AdapterSource) throws(AdapterError)
        -> Int?
    {
        guard let value = present(field, source) else { return nil }
        guard let number = value.integerValue, number > 0 else {
            throw source.bad(field, "is not a positive whole number")
        }
        return number
    }

    private static func number(_ field: String, _ source: AdapterSource) throws(AdapterError)
        -> Double?
    {
        guard let value = present(field, source) else { return nil }
        guard let number = value.numberValue, number.isFinite else {
            throw source.bad(field, "is not a number")
        }
        return number
    }
}

extension StrictJSON {
    /// Null, false, or empty: what an option that is not used looks like.
    var isNeutral: Bool {
        switch self {
        case .null, .bool(false): true
        case .string(let text): text.isEmpty
        case .array(let values): values.isEmpty
        case .object(let object): object.members.isEmpty
        default: false
        }
    }
}
