import LorryTensor

/// Layer norm tuning (arXiv 2312.11420): norms have weights of their own. Tensors, as peft 0.21
/// saves them:
///
///     base_model.model.<norm>.ln_tuning_layers.weight  [hiddenSize]
struct LNTuningMethod: PEFTMethod {
    let peftTypes = ["LN_TUNING"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [])
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        for module in try targets(tensors) {
            let weight = try tensors.require(
                module, "ln_tuning_layers", shape: [builder.configuration.hiddenSize])
            guard case .norm(let site) = module else {
                throw source.unsupported(
                    "target_modules", "'\(module.path)' is not a norm")
            }
            builder.replaceNorm(site, weight: .tensor(weight))
        }
        try tensors.requireEmpty()
        return "ln_tuning"
    }

    private func targets(_ tensors: AdapterTensors) throws(AdapterError) -> [BaseModule] {
        let source = tensors.source
        let targets = tensors.modules(having: "ln_tuning_layers")
        guard !targets.isEmpty else {
            throw AdapterError(
                .invalid, "\(source.weightsName): has no ln_tuning_layers of any module")
        }
        let selection = ModuleTargets(source: source, configuration: tensors.configuration)
        guard let norms = try selection.selectedNorms(), let others = try selection.selected()
        else { return targets }
        guard others.isEmpty else {
            throw source.unsupported(
                "target_modules", "'\(others[0].path)' is not a norm")
        }
        for module in norms where !targets.contains(module) {
            throw source.bad("target_modules", "\(module.path) has no tensors")
        }
        for module in targets where !norms.contains(module) {
            throw source.badTensor(
                "\(AdapterTensors.prefix)\(module.path).ln_tuning_layers",
                "belongs to a module that target_modules does not select")
        }
        return targets
    }
}
