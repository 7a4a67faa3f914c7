import LorryTensor

/// TinyLoRA (arXiv 2602.04118): `y = W x + b + B (Σ_i v_i P_i) A x`.
///
/// Modules share vectors v: of n modules in the model's order, `g = max(1, round(n (1 -
/// weight_tying)))` groups of `max(1, n / g)` follow one another, the last taking the rest. Where the
/// file does not have P it is drawn as peft does, `normal / √r` from a generator of
/// `projection_seed` and the module's number. Tensors, as peft 0.21 saves them:
///
///     base_model.tinylora_v.<group>  [u]
///     base_model.model.<module>.tinylora_A  [r, inFeatures]
///     base_model.model.<module>.tinylora_B  [outFeatures, r]
///     base_model.model.<module>.tinylora_P  [u, r, r]
struct TinyLoRAMethod: PEFTMethod {
    let peftTypes = ["TINYLORA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "bias", "fan_in_fan_out", "init_v_bound", "init_weights", "projection_seed", "r",
            "save_projection", "tinylora_dropout", "u", "weight_tying",
        ])
        let bias = try SavedBiases(source, only: "tinylora_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let projections = try Projections(source)
        let targets = try tensors.linearTargets(having: "tinylora_A")
        let tying = try source.number("weight_tying") ?? 0
        guard (0...1).contains(tying) else { throw source.bad("weight_tying", "is not in 0...1") }
        let groupCount = max(
            1, Int((Double(targets.count) * (1 - tying)).rounded(.toNearestOrEven)))
        let groupSize = max(1, targets.count / groupCount)
        var vectors: [TensorPlace] = []
        for group in 0..<groupCount {
            vectors.append(
                TensorPlace(
                    try tensors.require(
                        "base_model.tinylora_v.\(group)", shape: [projections.count])))
        }
        for (index, module) in targets.enumerated() {
            let vector = vectors[min(index / groupSize, groupCount - 1)]
            try add(module, index: index, vector, projections, &tensors, &builder)
        }
        try bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "tinylora"
    }

    private func add(
        _ module: BaseModule, index: Int, _ vector: TensorPlace, _ projections: Projections,
        _ tensors: inout AdapterTensors, _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let rank = min(projections.rank, outFeatures, inFeatures)
        let down = try tensors.require(module, "tinylora_A", shape: [rank, inFeatures])
        let up = TensorPlace(
            try tensors.require(module, "tinylora_B", shape: [outFeatures, rank]))
        let matrices = try projections.matrices(module, index: index, rank: rank, &tensors)
        let count = projections.count
        builder.addProduct(
            at: module, rank: rank, down: .tensor(down),
            up: .derived(count: outFeatures * rank) { reader throws(AdapterError) in
                let middle = DenseAlgebra.product(
                    .init(reader.floats(vector)), .init(try reader.floats(matrices)), m: 1,
                    n: rank * rank, k: count)
                return DenseAlgebra.product(
                    .init(reader.floats(up)), .init(middle), m: outFeatures, n: rank, k: rank)
            })
    }

    /// P.
    private struct Projections {
        let rank: Int
        /// u
        let count: Int
        private let isSaved: Bool
        private let seed: Int

        init(_ source: AdapterSource) throws(AdapterError) {
            rank = try source.rank("r", default: 2)
            count = try source.integer("u") ?? 64
            guard count <= 1 << 20, count * rank * rank <= 1 << 26 else {
                throw source.unsupported("u", "\(count) matrices of rank \(rank) are too many")
            }
            isSaved = try source.flag("save_projection", default: true)
            seed = try source.seed("projection_seed", default: 42)
        }

        /// `[u, rank, rank]`
        func matrices(
            _ module: BaseModule, index: Int, rank: Int, _ tensors: inout AdapterTensors
        ) throws(AdapterError) -> Operand {
            // peft draws them anew even where they are saved against the configuration.
            let saved = tensors.take(module, "tinylora_P")
            if isSaved, let saved {
                try tensors.check(saved, shape: [count, rank, rank])
                return .tensor(saved)
            }
            let size = count * rank * rank
            let seed = seed &+ index
            return .derived(count: size) { _ in
                var generator = TorchGenerator(seed: seed)
                return generator.normal(
                    count: size, deviation: Float(1 / Double(rank).squareRoot()))
            }
        }
    }
}
