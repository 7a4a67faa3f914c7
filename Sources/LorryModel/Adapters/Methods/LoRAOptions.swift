/// The fields of a LoRA `adapter_config.json` that change what is computed.
///
/// A field that Lorry does not know and that is set to anything but a neutral value is refused: an
/// option that is not understood could change the answer.
struct LoRAOptions {
    /// What peft does to the base's weight before it trains, and again when it loads the adapter.
    enum Initialization {
        case none
        /// Takes away the `r` largest singular parts.
        case pissa
        /// Takes away `s` times the first `r` parts of the QR decomposition.
        case olora
    }

    /// BD-LoRA: modules whose A or B consists of blocks on a diagonal.
    struct BlockDiagonal {
        let blockCount: Int
        let modulesOfA: [String]
        let modulesOfB: [String]
    }

    let rank: Int
    let alpha: Double
    let isRankStabilized: Bool
    /// `lora_bias`: the B matrices have biases.
    let hasDeltaBias: Bool
    /// DoRA: rows have magnitudes of their own.
    let isDecomposed: Bool
    /// KaSA: a diagonal between A and B, and a base without its smallest singular parts.
    let hasSingularDiagonal: Bool
    let blockDiagonal: BlockDiagonal?
    let initialization: Initialization
    let bias: SavedBiases
    private let rankOverrides: ModuleOverrides
    private let alphaOverrides: ModuleOverrides

    init(_ source: AdapterSource) throws(AdapterError) {
        try source.refuseUnknownFields(
            known: Self.knownFields, reasons: Self.unsupportedFields)
        rank = try source.integer("r") ?? 8
        alpha = try source.number("lora_alpha") ?? 8
        isRankStabilized = try source.flag("use_rslora")
        hasDeltaBias = try source.flag("lora_bias")
        isDecomposed = try source.flag("use_dora")
        hasSingularDiagonal = source.present("kasa_config").map { !$0.isNeutral } ?? false
        blockDiagonal = try BlockDiagonal(source)
        initialization = try Self.initialization(source)
        // Conv1D bases store their weight transposed; the adapter's own tensors never are.
        _ = try source.flag("fan_in_fan_out")
        bias = try SavedBiases(source, only: "lora_only")
        rankOverrides = try ModuleOverrides("rank_pattern", source: source)
        alphaOverrides = try ModuleOverrides("alpha_pattern", source: source)
        guard !(isDecomposed && hasDeltaBias) else {
            throw source.unsupported("lora_bias", "is not supported together with use_dora")
        }
        guard !(isDecomposed && hasSingularDiagonal) else {
            throw source.unsupported("kasa_config", "is not supported together with use_dora")
        }
    }

    /// `s`, for a module whose tensors have the given rank.
    ///
    /// peft sorts the keys of `rank_pattern` when it saves, so that of several patterns that match
    /// another may have won in training: the tensors' rank must be that of any of them.
    func scaling(
        _ path: String, rank: Int, tensor: String, limit: Int = .max, _ source: AdapterSource
    ) throws(AdapterError) -> Float {
        let overrides = try rankOverrides.values(for: path)
        let expected = overrides.isEmpty ? [Double(self.rank)] : overrides
        // Decompositions give no more parts than the weight has; the scale is that of the rank
        // which was asked for.
        let asked = initialization == .none ? [] : expected.filter { $0 > Double(limit) }
        let isCut = rank == limit && asked.count == 1 && expected.count == 1
        guard expected.contains(Double(rank)) || isCut else {
            let wanted = expected.map { Int(exactly: $0).map(String.init) ?? "\($0)" }
                .joined(separator: " or ")
            throw source.badTensor(tensor, "has rank \(rank), adapter_config.json says \(wanted)")
        }
        let alpha = try alphaOverrides.values(for: path).first ?? self.alpha
        let ranks = isCut ? asked[0] : Double(rank)
        let divisor = isRankStabilized ? ranks.squareRoot() : ranks
        let scaling = Float(alpha / divisor)
        guard scaling.isFinite else { throw source.bad("lora_alpha", "\(alpha) is too large") }
        return scaling
    }

    // MARK: Fields

    /// Fields that are read here or elsewhere, or that change nothing when an adapter is served.
    private static let knownFields: Set<String> = [
        "alora_invocation_tokens", "alpha_pattern", "bias", "ensure_weight_tying", "eva_config",
        "fan_in_fan_out", "init_lora_weights", "kasa_config", "lora_alpha", "lora_bias",
        "lora_dropout", "megatron_core", "monteclora_config", "qalora_group_size", "r",
        "rank_pattern", "trainable_token_indices", "use_bdlora", "use_dora", "use_rslora",
        "velora_config",
        // Read only where init_lora_weights names the method they configure.
        "corda_config", "loftq_config", "lora_ga_config",
    ]

    private static let unsupportedFields: [String: String] = [
        "use_qalora": "QALoRA needs a GPTQ base and is not supported",
        "layer_replication":
            "layer_replication makes another base model of repeated layers and is not supported",
        "target_parameters": "the base model has no parameters that can be targets",
        "arrow_config": "Arrow routes between loaded adapters and is not supported",
        "megatron_config": "Megatron layers are not supported",
    ]

    /// Some initializations change the base's weights, and the adapter is a delta to the changed
    /// ones. What follows from the base alone is done again; what depended on data is refused.
    private static func initialization(
        _ source: AdapterSource
    ) throws(AdapterError) -> Initialization {
        guard let field = source.present("init_lora_weights"), field.boolValue == nil else {
            return .none
        }
        guard let name = field.stringValue?.lowercased() else {
            throw source.bad("init_lora_weights", "is neither true, false nor a name")
        }
        switch name {
        case "gaussian", "eva", "orthogonal", "mica": return .none
        case "pissa": return .pissa
        case "olora": return .olora
        default:
            throw source.unsupported(
                "init_lora_weights",
                "'\(name)' changes the base's weights in a way that cannot be repeated; convert "
                    + "the adapter with peft's path_initial_model_for_weight_conversion")
        }
    }
}

extension LoRAOptions {
    /// Whether peft changes the base's weights where the adapter's layers are put around them.
    static func changesBase(_ source: AdapterSource) -> Bool {
        ["pissa", "olora"].contains(source.present("init_lora_weights")?.stringValue?.lowercased())
            || source.present("kasa_config").map { !$0.isNeutral } ?? false
    }
}

extension LoRAOptions.BlockDiagonal {
    init?(_ source: AdapterSource) throws(AdapterError) {
        guard let value = source.present("use_bdlora"), !value.isNeutral else { return nil }
        guard let object = value.objectValue else {
            throw source.bad("use_bdlora", "is not an object")
        }
        func names(_ field: String) throws(AdapterError) -> [String] {
            guard let value = object[field], !value.isNull else { return [] }
            guard let names = value.arrayValue?.compactMap(\.stringValue) else {
                throw source.bad("use_bdlora.\(field)", "is not a list of names")
            }
            return names
        }
        guard let count = object["nblocks"]?.integerValue, count > 0 else {
            throw source.bad("use_bdlora.nblocks", "is not a positive whole number")
        }
        blockCount = count
        modulesOfA = try names("target_modules_bd_a")
        modulesOfB = try names("target_modules_bd_b")
    }
}
