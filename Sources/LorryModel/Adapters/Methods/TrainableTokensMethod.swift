/// Trainable tokens: rows of the embedding, and of a head that is tied to it, or of a head that is
/// a target, of the adapter's own.
/// They are absolute, whatever their name says. Tensor:
///
///     base_model.model.model.embed_tokens.trainable_tokens_delta  [tokens, hiddenSize]
///     base_model.model.lm_head.trainable_tokens_delta             [tokens, hiddenSize]
struct TrainableTokensMethod: PEFTMethod {
    let peftTypes = ["TRAINABLE_TOKENS"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: ["init_weights", "token_indices"])
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let name = "trainable_tokens_delta"
        var modules = tensors.modules(having: name)
        if builder.configuration.tiesEmbeddings, modules == [.embedding, .head],
            try ModuleTargets(source: source, configuration: builder.configuration).selected()
                == [.embedding]
        {
            // The same numbers, saved again of the head that is tied.
            tensors.discard { $0 == "\(AdapterTensors.prefix)\(BaseModule.head.path).\(name)" }
        }
        let targets = try tensors.targets(having: name)
        guard targets.allSatisfy(\.isTable) else {
            throw source.unsupported(
                "target_modules", "only embed_tokens and lm_head are supported")
        }
        modules = targets
        guard let field = source.present("token_indices") else {
            throw source.bad("token_indices", "is missing")
        }
        let tokens = try TokenRows.list(field, field: "token_indices", source)
        for module in targets {
            let tensor = try tensors.require(module, name, shape: [nil, nil])
            if module == .embedding, targets.count == 1, builder.configuration.tiesEmbeddings {
                modules = [.embedding, .head]
            } else {
                modules = [module]
            }
            try TokenRows.add(
                tokens, tensor, at: modules, field: "token_indices", tensors, to: &builder)
        }
        try tensors.requireEmpty()
        return "trainable_tokens"
    }
}
