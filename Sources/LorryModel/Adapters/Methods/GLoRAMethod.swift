import LorryTensor

/// GLoRA (arXiv 2306.07967): `y = (W ⊙ (1 + A) + B) x + b ⊙ (1 + D) + E + W C`, the last three terms
/// only where the base has a bias. Tensors, as peft 0.21 saves them, for X of A, B, C, D and E:
///
///     base_model.model.<module>.glora_X.Xd, .Xu  a product: [outFeatures, r], [r, inFeatures];
///                                                for C [inFeatures, r], [r, 1]
///     base_model.model.<module>.glora_X.X        a vector: of A and B [outFeatures, 1], of C
///                                                [inFeatures, 1], of D and E [outFeatures];
///                                                or one number: [1]
///     base_model.model.<module>.glora_X.zeros    nothing
///
/// Vectors and single numbers scale the outputs and add a delta of rank 1 (the sum of the inputs);
/// a product with W is one matrix, made when the adapter is brought into memory.
struct GLoRAMethod: PEFTMethod {
    let peftTypes = ["GLORA"]

    /// What a path adds, as far as its shape goes.
    private enum Path {
        case none
        /// `[count]`, or one number for all.
        case vector(TensorPlace)
        case product(left: TensorPlace, right: TensorPlace, rank: Int)
    }

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        // The kinds of the paths are seen from the tensors.
        try source.refuseUnknownFields(known: [
            "r", "bias", "config_A_B", "config_C", "config_D_E", "init_weights",
        ])
        let biases = try SavedBiases(source, only: "glora_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(
            havingAnyOf: ["glora_A.Xd", "glora_A.X", "glora_A.zeros"])
        for module in targets {
            try addWeights(module, &tensors, &builder)
            try addBiases(module, &tensors, &builder)
        }
        try biases.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "glora"
    }

    /// - Parameter columns: nil for a path that is a vector and nothing else.
    private func path(
        _ name: String, of module: BaseModule, rows: Int, columns: Int?,
        _ tensors: inout AdapterTensors
    ) throws(AdapterError) -> Path {
        if let columns, let left = tensors.take(module, "\(name).Xd") {
            try tensors.check(left, shape: [rows, nil])
            let rank = left.shape[1]
            let right = try tensors.require(module, "\(name).Xu", shape: [rank, columns])
            return .product(left: TensorPlace(left), right: TensorPlace(right), rank: rank)
        }
        if let vector = tensors.take(module, "\(name).X") {
            guard vector.shape != [1] else {
                try tensors.check(vector, shape: [1])
                return .vector(TensorPlace(vector))
            }
            try tensors.check(vector, shape: columns == nil ? [rows] : [rows, 1])
            return .vector(TensorPlace(vector))
        }
        let shape = columns.map { [rows, $0] } ?? [rows]
        _ = try tensors.require(module, "\(name).zeros", shape: shape)
        return .none
    }

    // MARK: - A and B

    private func addWeights(
        _ module: BaseModule, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let a = try path(
            "glora_A", of: module, rows: outFeatures, columns: inFeatures, &tensors)
        let b = try path(
            "glora_B", of: module, rows: outFeatures, columns: inFeatures, &tensors)
        switch (a, b) {
        case (.none, .none): break
        case (.product(let left, let right, let rank), .product(let leftB, let rightB, let rankB)):
            builder.addDense(
                at: module,
                matrix: .weighted(
                    builder.weight(of: module), left: .stored(left), right: .stored(right),
                    rank: rank, outFeatures: outFeatures, inFeatures: inFeatures))
            builder.addProduct(
                at: module, rank: rankB, down: .stored(rightB), up: .stored(leftB))
        case (.vector(let scale), .vector(let offset)):
            let factors = Operand.derived(count: outFeatures) { reader in
                Self.spread(reader.floats(scale), outFeatures).map { 1 + $0 }
            }
            // Outputs are scaled after deltas.
            let up = Operand.derived(count: outFeatures) { reader throws(AdapterError) in
                let factors = try reader.floats(factors)
                let offsets = Self.spread(reader.floats(offset), outFeatures)
                guard zip(factors, offsets).allSatisfy({ $0 != 0 || $1 == 0 }) else {
                    throw scale.bad(
                        "takes a whole row of the base's weight away, which is not supported",
                        .unsupported)
                }
                return zip(factors, offsets).map { $0 == 0 ? 0 : $1 / $0 }
            }
            builder.setOutputScaleWithoutBias(at: module, vector: factors)
            builder.addLowRank(
                at: module, rank: 1,
                down: .constant([Float](repeating: 1, count: inFeatures)), up: up)
        default:
            throw tensors.source.bad(
                "config_A_B", "\(module.path) has a glora_A and a glora_B of different kinds")
        }
    }

    /// A vector, or one number for all.
    private static func spread(_ floats: [Float], _ count: Int) -> [Float] {
        floats.count == count ? floats : [Float](repeating: floats[0], count: count)
    }

    // MARK: - C, D and E

    private func addBiases(
        _ module: BaseModule, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let c = try path("glora_C", of: module, rows: inFeatures, columns: 1, &tensors)
        let d = try path("glora_D", of: module, rows: outFeatures, columns: nil, &tensors)
        let e = try path("glora_E", of: module, rows: outFeatures, columns: nil, &tensors)
        guard builder.configuration.hasBias(module) else { return }
        if case .vector(let place) = d {
            builder.addBias(
                at: module,
                vector: .derived(count: outFeatures) { reader in
                    zip(Self.spread(reader.floats(place), outFeatures), reader.base.bias(module))
                        .map { $0 * $1 }
                })
        }
        if case .vector(let place) = e {
            builder.addBias(
                at: module,
                vector: .derived(count: outFeatures) { reader in
                    Self.spread(reader.floats(place), outFeatures)
                })
        }
        if case .none = c { return }
        let weight = builder.weight(of: module)
        builder.addBias(
            at: module,
            vector: .derived(count: outFeatures) { reader throws(AdapterError) in
                let vector: [Float] =
                    switch c {
                    case .none: []
                    case .vector(let place): Self.spread(reader.floats(place), inFeatures)
                    case .product(let left, let right, let rank):
                        DenseAlgebra.product(
                            .init(reader.floats(left)), .init(reader.floats(right)),
                            m: inFeatures, n: 1, k: rank)
                    }
                return DenseAlgebra.product(
                    .init(try reader.floats(weight)), .init(vector), m: outFeatures, n: 1,
                    k: inFeatures)
            })
    }
}
