import LorryTensor

/// OSF (arXiv 2504.07097): W's largest singular parts stay, its q smallest are replaced:
/// `y = (W - U' S' V'ᵀ + U_low S_low V_low) x + b`. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.osf_svd_params.U_low  [outFeatures, q]
///     base_model.model.<module>.osf_svd_params.S_low  [q]
///     base_model.model.<module>.osf_svd_params.V_low  [q, inFeatures]
///
/// The base's singular parts are computed when the adapter is brought into memory.
struct OSFMethod: PEFTMethod {
    let peftTypes = ["OSF"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        // How many parts are replaced is seen from the tensors.
        try source.refuseUnknownFields(known: [
            "effective_rank", "rank_pattern", "init_weights", "target_svd_config",
        ])
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        for module in try tensors.linearTargets(having: "osf_svd_params.U_low") {
            try add(module, &tensors, &builder)
        }
        try tensors.requireEmpty()
        return "osf"
    }

    private func add(
        _ module: BaseModule, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let left = try tensors.require(
            module, "osf_svd_params.U_low", shape: [outFeatures, nil])
        let rank = left.shape[1]
        guard rank <= min(outFeatures, inFeatures) else {
            throw tensors.source.badTensor(left.name, "has more parts than the base's weight")
        }
        let values = try tensors.require(module, "osf_svd_params.S_low", shape: [rank])
        let right = try tensors.require(
            module, "osf_svd_params.V_low", shape: [rank, inFeatures])
        let (leftPlace, valuesPlace) = (TensorPlace(left), TensorPlace(values))
        let scaled = Operand.derived(count: outFeatures * rank) { reader in
            Self.scaleColumns(reader.floats(leftPlace), by: reader.floats(valuesPlace))
        }
        guard 2 * rank * (outFeatures + inFeatures) >= outFeatures * inFeatures else {
            builder.addLowRank(at: module, rank: rank, down: .tensor(right), up: scaled)
            SingularParts.subtractSmallest(rank, of: module, from: &builder)
            return
        }
        let weight = builder.weight(of: module)
        let rightPlace = TensorPlace(right)
        builder.addDense(
            at: module,
            matrix: .derived(count: outFeatures * inFeatures) { reader throws(AdapterError) in
                let parts = try reader.singularParts(
                    of: weight, rows: outFeatures, columns: inFeatures)
                // [L_new, -L_old] [R_new; R_old]
                let width = parts.values.count
                let new = try reader.floats(scaled)
                var columns: [Float] = []
                columns.reserveCapacity(2 * outFeatures * rank)
                for row in 0..<outFeatures {
                    columns += new[row * rank..<(row + 1) * rank]
                    for index in width - rank..<width {
                        columns.append(-parts.left[row * width + index] * parts.values[index])
                    }
                }
                let rows =
                    reader.floats(rightPlace) + parts.right[((width - rank) * inFeatures)...]
                return DenseAlgebra.product(
                    .init(columns), .init(rows), m: outFeatures, n: inFeatures, k: 2 * rank)
            })
    }

    /// `M diag(v)`, M `[rows, v.count]`.
    private static func scaleColumns(_ matrix: [Float], by vector: [Float]) -> [Float] {
        var result = matrix
        for start in stride(from: 0, to: matrix.count, by: vector.count) {
            for (column, factor) in vector.enumerated() { result[start + column] *= factor }
        }
        return result
    }
}
