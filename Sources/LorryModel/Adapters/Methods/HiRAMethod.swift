import LorryTensor

/// HiRA (ICLR 2025, openreview TwJrTz9cRS): `y = W x + (W ⊙ B A) x + b`. Tensors, as peft 0.21 saves
/// them:
///
///     base_model.model.<module>.hira_A  [r, inFeatures]
///     base_model.model.<module>.hira_B  [outFeatures, r]
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
        let targets = try tensors.linearTargets(havingAnyOf: ["hira_A", "hira_embedding_A"])
        for module in targets {
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
