import LorryTensor

/// HiRA (ICLR 2025, openreview TwJrTz9cRS): `y = W x + (W ⊙ B A) x + b`. Tensors, as peft 0.21 saves
/// them:
///
///     base_model.model.<module>.hira_A  [r, inFeatures]
///     base_model.model.<module>.hira_B  [outFeatures, r]
///     base_model.model.model.embed_tokens.hira_embedding_A  [r, vocabularySize]
///     base_model.model.model.embed_tokens.hira_embedding_B  [hiddenSize, r]
///
/// The delta has the rank of W, so that it is one matrix, made when the adapter is brought into
/// memory.
struct HiRAMethod: PEFTMethod {
    let peftTypes = ["HIRA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "r", "rank_pattern", "hira_dropout", "fan_in_fan_out", "init_weights",
        ])
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.targets(havingAnyOf: ["hira_A", "hira_embedding_A"])
        for module in targets {
            guard module != .embedding else {
                try addEmbedding(&tensors, &builder)
                continue
            }
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            let a = try tensors.require(module, "hira_A", shape: [nil, inFeatures])
            let rank = a.shape[0]
            let b = try tensors.require(module, "hira_B", shape: [outFeatures, rank])
            builder.addDense(
                at: module,
                matrix: .weighted(
                    builder.weight(of: module), left: .tensor(b), right: .tensor(a), rank: rank,
                    outFeatures: outFeatures, inFeatures: inFeatures))
        }
        try tensors.requireEmpty()
        return "hira"
    }

    /// `e = E[t] ⊙ (1 + (B A)[:, t])`, as a table of the adapter's own.
    private func addEmbedding(
        _ tensors: inout AdapterTensors, _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (hiddenSize, tokenCount) = builder.dimensions(of: .embedding)
        let a = try tensors.require(.embedding, "hira_embedding_A", shape: [nil, tokenCount])
        let rank = a.shape[0]
        let b = try tensors.require(.embedding, "hira_embedding_B", shape: [hiddenSize, rank])
        let (aPlace, bPlace) = (TensorPlace(a), TensorPlace(b))
        let table = builder.weight(of: .embedding)
        builder.replaceTable(
            .embedding,
            rows: .derived(count: tokenCount * hiddenSize) { reader throws(AdapterError) in
                let products = DenseAlgebra.product(
                    .init(reader.floats(aPlace), .transposed),
                    .init(reader.floats(bPlace), .transposed), m: tokenCount, n: hiddenSize,
                    k: rank)
                return zip(try reader.floats(table), products).map { $0 * (1 + $1) }
            })
    }
}

extension Operand {
    /// `W ⊙ (L R)`
    ///
    /// - Parameters:
    ///   - weight: W, `[outFeatures, inFeatures]`.
    ///   - left: L, `[outFeatures, rank]`.
    ///   - right: R, `[rank, inFeatures]`.
    static func weighted(
        _ weight: Operand, left: Operand, right: Operand, rank: Int, outFeatures: Int,
        inFeatures: Int
    ) -> Operand {
        .derived(count: outFeatures * inFeatures) { reader throws(AdapterError) in
            var product = DenseAlgebra.product(
                .init(try reader.floats(left)), .init(try reader.floats(right)), m: outFeatures,
                n: inFeatures, k: rank)
            let weight = try reader.floats(weight)
            product.withUnsafeMutableBufferPointer { product in
                weight.withUnsafeBufferPointer { weight in
                    for index in product.indices { product[index] *= weight[index] }
                }
            }
            return product
        }
    }
}
