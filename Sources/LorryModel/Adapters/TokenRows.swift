/// Rows of the embedding that an adapter trains one by one: absolute, not deltas.
enum TokenRows {
    /// Gives tokens their embeddings, their rows of the head, or both.
    ///
    /// - Parameters:
    ///   - tokens: in the order of the rows.
    ///   - tensor: `[tokens, hiddenSize]`
    static func add(
        _ tokens: [Int32], _ tensor: SafetensorsFile.Tensor,
        at modules: [BaseModule], field: String, _ tensors: AdapterTensors,
        to builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        try tensors.check(tensor, shape: [tokens.count, builder.configuration.hiddenSize])
        guard Set(tokens).count == tokens.count else {
            throw tensors.source.bad(field, "lists a token twice")
        }
        for token in tokens where token < 0 || Int(token) >= builder.vocabularySize {
            throw tensors.source.bad(
                field, "\(token) is no token of the base, which has \(builder.vocabularySize)")
        }
        for module in modules {
            builder.replaceRows(of: module, tokens: tokens, rows: .tensor(tensor))
        }
    }

    /// A list of tokens.
    static func list(
        _ value: StrictJSON, field: String, _ source: AdapterSource
    ) throws(AdapterError) -> [Int32] {
        guard let entries = value.arrayValue else { throw source.bad(field, "is not a list") }
        var tokens: [Int32] = []
        for entry in entries {
            guard let token = entry.integerValue.flatMap({ Int32(exactly: $0) }), token >= 0 else {
                throw source.bad(field, "has an entry that is no token")
            }
            tokens.append(token)
        }
        return tokens
    }
}
