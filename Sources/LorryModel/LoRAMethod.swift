import LorryTensor

/// LoRA (arXiv 2106.09685) and rank-stabilized LoRA (arXiv 2312.03732):
/// `y = W x + b + s · B (A x)` with `s = alpha / r`, or `alpha / √r` with `use_rslora`.
///
/// Also `rank_pattern`, `alpha_pattern`, `lora_bias` (adds `s · bias`) and `bias` (`all`,
/// `lora_only`: the stored bias takes the place of the base's). Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.lora_A.weight  [r, inFeatures]
///     base_model.model.<module>.lora_B.weight  [outFeatures, r]
///     base_model.model.<module>.lora_B.bias    [outFeatures]
///     base_model.model.<module>.base_layer.bias or .bias  [outFeatures]
struct LoRAMethod: PEFTMethod {
    let peftType = "LORA"
    /// The largest rank that is served.
    private static let maximumRank = 512

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        let options = try LoRAOptions(source)
        var modules = try LoRATensors(source, configuration: builder.configuration)
        try modules.checkCoverage(
            of: try ModuleTargets(source: source, configuration: builder.configuration).selected())
        for (module, tensors) in modules.adapted {
            try add(tensors, to: module, options, source, &builder)
        }
        for (module, bias) in modules.replacedBiases {
            try addReplacedBias(bias, to: module, options, modules, source, &builder)
        }
        return options.isRankStabilized ? "rslora" : "lora"
    }

    private func add(
        _ tensors: LoRATensors.Module, to module: ModuleTargets.Module, _ options: LoRAOptions,
        _ source: AdapterSource, _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (down, up) = try tensors.pair(module, source)
        let (outFeatures, inFeatures) = builder.configuration.dimensions(of: module.site)
        let rank = down.shape.first ?? 0
        guard down.shape == [rank, inFeatures] else {
            throw source.badTensor(
                down.name, "has shape \(down.shape), expected [rank, \(inFeatures)]")
        }
        guard up.shape == [outFeatures, rank] else {
            throw source.badTensor(
                up.name, "has shape \(up.shape), expected [\(outFeatures), \(rank)]")
        }
        guard (1...Self.maximumRank).contains(rank) else {
            throw source.badTensor(
                down.name, "has rank \(rank), served are 1 to \(Self.maximumRank)")
        }
        let scaling = try options.scaling(module.path, rank: rank, tensor: down.name, source)
        builder.addLowRank(
            layer: module.layer, site: module.site, rank: rank, down: .tensor(down),
            up: .tensor(up), scale: scaling)
        if let bias = tensors.upBias {
            guard options.hasDeltaBias else {
                throw source.badTensor(bias.name, "is there, but lora_bias is not set")
            }
            try checkBias(bias, outFeatures, source)
            builder.addBias(
                layer: module.layer, site: module.site, vector: .tensor(bias), scale: scaling)
        } else if options.hasDeltaBias {
            throw source.bad("lora_bias", "is set, but \(module.path) has no lora_B.bias")
        }
    }

    private func addReplacedBias(
        _ bias: LoRATensors.ReplacedBias, to module: ModuleTargets.Module, _ options: LoRAOptions,
        _ modules: LoRATensors, _ source: AdapterSource, _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let isAdapted = modules.adapted[module] != nil
        guard options.bias == .all || options.bias == .adaptedOnly && isAdapted else {
            throw source.badTensor(bias.tensor.name, "is there, but bias does not say so")
        }
        guard bias.isOfAdaptedModule == isAdapted else {
            throw source.badTensor(bias.tensor.name, "does not fit the targets")
        }
        guard builder.configuration.biasedSites.contains(module.site) else {
            throw source.badTensor(bias.tensor.name, "replaces a bias that the base does not have")
        }
        let outFeatures = builder.configuration.dimensions(of: module.site).outFeatures
        try checkBias(bias.tensor, outFeatures, source)
        builder.replaceBias(
            layer: module.layer, site: module.site, vector: .tensor(bias.tensor))
    }

    private func checkBias(
        _ bias: SafetensorsFile.Tensor, _ outFeatures: Int, _ source: AdapterSource
    ) throws(AdapterError) {
        guard bias.shape == [outFeatures] else {
            throw source.badTensor(bias.name, "has shape \(bias.shape), expected [\(outFeatures)]")
        }
    }
}

/// The tensors of a LoRA file, sorted by the modules that they belong to.
struct LoRATensors {
    struct Module {
        var down: SafetensorsFile.Tensor?
        var up: SafetensorsFile.Tensor?
        var upBias: SafetensorsFile.Tensor?

        func pair(_ module: ModuleTargets.Module, _ source: AdapterSource) throws(AdapterError)
            -> (down: SafetensorsFile.Tensor, up: SafetensorsFile.Tensor)
        {
            guard let down else {
                throw AdapterError(
                    .invalid, "\(AdapterSource.weightsFile): \(module.path) has no lora_A.weight")
            }
            guard let up else {
                throw AdapterError(
                    .invalid, "\(AdapterSource.weightsFile): \(module.path) has no lora_B.weight")
            }
            return (down, up)
        }
    }

    struct ReplacedBias {
        var tensor: SafetensorsFile.Tensor
        /// Saved under `base_layer`, as peft does for modules that it adapts.
        var isOfAdaptedModule: Bool
    }

    private(set) var adapted: [ModuleTargets.Module: Module] = [:]
    private(set) var replacedBiases: [ModuleTargets.Module: ReplacedBias] = [:]
    private let source: AdapterSource

    private static let prefix = "base_model.model."

    /// - Throws: `AdapterError` naming a tensor that belongs to no linear layer of the base.
    init(_ source: AdapterSource, configuration: ModelConfiguration) throws(AdapterError) {
        self.source = source
        var modules: [String: ModuleTargets.Module] = [:]
        for layer in 0..<configuration.layerCount {
            for site in LinearSite.allCases {
                modules[site.path(layer: layer)] = .init(layer: layer, site: site)
            }
        }
        for (name, tensor) in source.tensors.sorted(by: { $0.key < $1.key }) {
            guard tensor.elementType != nil else {
                throw source.badTensor(
                    name, "has dtype \(tensor.dtype.rawValue), expected F32, F16 or BF16")
            }
            try sort(tensor, modules)
        }
    }

    private mutating func sort(
        _ tensor: SafetensorsFile.Tensor, _ modules: [String: ModuleTargets.Module]
    ) throws(AdapterError) {
        func module(_ suffix: String) -> ModuleTargets.Module? {
            guard tensor.name.hasPrefix(Self.prefix), tensor.name.hasSuffix(suffix) else {
                return nil
            }
            return modules[
                String(tensor.name.dropFirst(Self.prefix.count).dropLast(suffix.count))]
        }
        if let module = module(".lora_A.weight") {
            adapted[module, default: Module()].down = tensor
        } else if let module = module(".lora_B.weight") {
            adapted[module, default: Module()].up = tensor
        } else if let module = module(".lora_B.bias") {
            adapted[module, default: Module()].upBias = tensor
        } else if let module = module(".base_layer.bias") {
            replacedBiases[module] = ReplacedBias(tensor: tensor, isOfAdaptedModule: true)
        } else if let module = module(".bias") {
            replacedBiases[module] = ReplacedBias(tensor: tensor, isOfAdaptedModule: false)
        } else if tensor.name.contains(".lora_embedding_") || tensor.name.contains("lm_head.") {
            throw AdapterError(
                .unsupported,
                "\(AdapterSource.weightsFile): tensor '\(tensor.name)': "
                    + "embeddings and the head are not supported as targets")
        } else {
            throw source.badTensor(tensor.name, "matches no module of the base model")
        }
    }

    /// Targets and tensors must cover each other.
    mutating func checkCoverage(of targets: [ModuleTargets.Module]?) throws(AdapterError) {
        guard !adapted.isEmpty else {
            throw AdapterError(.invalid, "\(AdapterSource.weightsFile): has no LoRA tensors")
        }
        guard let targets else { return }
        for target in targets where adapted[target] == nil {
            throw source.bad("target_modules", "\(target.path) has no tensors")
        }
        let selected = Set(targets)
        for module in adapted.keys.sorted(by: { $0.path < $1.path })
        where !selected.contains(module) {
            throw source.badTensor(
                "\(Self.prefix)\(module.path).lora_A.weight",
                "belongs to a module that target_modules does not select")
        }
    }
}
