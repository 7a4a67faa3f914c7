import LorryTensor

/// DeLoRA (arXiv 2503.18225):
/// `y = W x + b + B diag(λ / (r · ‖A_k‖ · ‖B_k‖)) A (w ⊙ x)`, norms at least 1e-4.
///
/// w are the norms of W's columns, as saved; else those of the base. Tensors, as peft 0.21 saves
/// them:
///
///     base_model.model.<module>.delora_A       [r, inFeatures]
///     base_model.model.<module>.delora_B       [outFeatures, r]
///     base_model.model.<module>.delora_lambda  [1]
///     base_model.model.<module>.delora_w_norm  [inFeatures]
struct DeLoRAMethod: PEFTMethod {
    let peftTypes = ["DELORA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        // lambda_pattern and delora_lambda are where training starts from.
        try source.refuseUnknownFields(known: [
            "bias", "delora_lambda", "init_weights", "lambda_pattern", "module_dropout", "r",
            "rank_pattern",
        ])
        let rank = try source.integer("r") ?? 8
        let overrides = try ModuleOverrides("rank_pattern", source: source)
        let bias = try SavedBiases(source, only: "delora_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "delora_A")
        for module in targets {
            let patterns = try overrides.values(for: module.path).compactMap { Int(exactly: $0) }
            try add(module, ranks: patterns.isEmpty ? [rank] : patterns, &tensors, &builder)
        }
        try bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "delora"
    }

    private func add(
        _ module: BaseModule, ranks: [Int], _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let down = try tensors.require(module, "delora_A", shape: [nil, inFeatures])
        let rank = down.shape[0]
        try tensors.checkRank(rank, down, expected: ranks)
        let up = try tensors.require(module, "delora_B", shape: [outFeatures, rank])
        let strength = try tensors.require(module, "delora_lambda", shape: [1])
        let norms: Operand
        if let saved = tensors.take(module, "delora_w_norm") {
            try tensors.check(saved, shape: [inFeatures])
            norms = .tensor(saved)
        } else {
            let weight = builder.weight(of: module)
            norms = .derived(count: inFeatures) { reader throws(AdapterError) in
                Self.columnNorms(try reader.floats(weight), columns: inFeatures)
            }
        }
        let (downPlace, upPlace, strengthPlace) = (
            TensorPlace(down), TensorPlace(up), TensorPlace(strength)
        )
        builder.addProduct(
            at: module, rank: rank,
            down: .derived(count: down.elementCount) { reader throws(AdapterError) in
                var floats = reader.floats(downPlace)
                let strength = Double(reader.floats(strengthPlace)[0]) / Double(rank)
                let upNorms = Self.columnNorms(reader.floats(upPlace), columns: rank)
                let weightNorms = try reader.floats(norms)
                for row in 0..<rank {
                    let range = row * inFeatures..<(row + 1) * inFeatures
                    let norm = floats[range].reduce(0.0) { $0 + Double($1) * Double($1) }
                        .squareRoot()
                    let factor = Float(
                        strength / (max(norm, 1e-4) * max(Double(upNorms[row]), 1e-4)))
                    for (index, weight) in zip(range, weightNorms) {
                        floats[index] *= factor * weight
                    }
                }
                return floats
            }, up: .tensor(up))
    }

    /// The norms of the columns of a row-major matrix.
    private static func columnNorms(_ matrix: [Float], columns: Int) -> [Float] {
        var squares = [Double](repeating: 0, count: columns)
        matrix.withUnsafeBufferPointer { matrix in
            squares.withUnsafeMutableBufferPointer { squares in
                for start in stride(from: 0, to: matrix.count, by: columns) {
                    for column in 0..<columns {
                        let value = Double(matrix[start + column])
                        squares[column] += value * value
                    }
                }
            }
        }
        return squares.map { Float($0.squareRoot()) }
    }
}
