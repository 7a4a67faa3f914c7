/// Trainable tokens: rows of the embedding, and of a head that is tied to it, of the adapter's own.
/// They are absolute, whatever their name says. Tensor:
///
///     base_model.model.model.embed_tokens.trainable_tokens_delta  [tokens, hiddenSize]
struct TrainableTokensMethod: PEFTMethod {
    let peftTypes = ["TRAINABLE_TOKENS"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: ["init_weights", "token_indices"])
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let name = "trainable_tokens_delta"
        let targets = try tensors.targets(having: name)
        guard targets == [.embedding] else {
            throw source.unsupported("target_modules", "only embed_tokens is supported")
        }
        guard let field = source.present("token_indices") else {
            throw source.bad("token_indices", "is missing")
        }
        let tokens = try TokenRows.list(field, field: "token_indices", source)
        let tensor = try tensors.require(.embedding, name, shape: [nil, nil])
        try TokenRows.add(tokens, tensor, field: "token_indices", tensors, to: &builder)
        try tensors.requireEmpty()
        return "trainable_tokens"
    }
}
