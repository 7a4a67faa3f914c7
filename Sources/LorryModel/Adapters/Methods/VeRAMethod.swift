import LorryTensor

/// VeRA (arXiv 2310.11454): `y = W x + b + λb ⊙ B (λd ⊙ (A x))`, and PVeRA (arXiv 2512.07703), whose
/// mean is VeRA with the first halves of λd and A.
///
/// A and B are shared by all modules, which use their first columns and rows. Where the file does
/// not have them they are drawn as peft does: `kaiming_uniform_`, A before B, from a generator of
/// `projection_prng_key`, for the largest dimensions of the targets. Tensors, as peft 0.21 saves
/// them:
///
///     base_model.vera_A  [r, largest inFeatures]       base_model.pvera_A  [2r, …]
///     base_model.vera_B  [largest outFeatures, r]      base_model.pvera_B  [largest outFeatures, r]
///     base_model.model.<module>.vera_lambda_d  [r]     pvera_lambda_d  [2r]
///     base_model.model.<module>.vera_lambda_b  [outFeatures]
struct VeRAMethod: PEFTMethod {
    let peftTypes = ["VERA", "PVERA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        let isProbabilistic = source.configuration["peft_type"]?.stringValue == "PVERA"
        let name = isProbabilistic ? "pvera" : "vera"
        try source.refuseUnknownFields(
            known: [
                "bias", "d_initial", "fan_in_fan_out", "generator_seed", "init_weights",
                "projection_prng_key", "\(name)_dropout", "r", "save_projection",
            ],
            reasons: ["sample_at_inference": "answers would be random"])
        let rank = try source.rank("r", default: 256)
        let bias = try SavedBiases(source, only: "\(name)_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "\(name)_lambda_d")
        let projections = try Projections(
            name: name, rank: rank, halves: isProbabilistic ? 2 : 1, targets: targets, &tensors,
            builder)
        for module in targets {
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            let between = TensorPlace(
                try tensors.require(
                    module, "\(name)_lambda_d", shape: [isProbabilistic ? 2 * rank : rank]))
            let after = try tensors.require(module, "\(name)_lambda_b", shape: [outFeatures])
            builder.addProduct(
                at: module, rank: rank,
                down: .scalingRows(
                    projections.down(columns: inFeatures), columns: inFeatures,
                    by: .derived(count: rank) { Array($0.floats(between)[..<rank]) }),
                up: .scalingRows(
                    projections.up(rows: outFeatures), columns: rank, by: .tensor(after)))
        }
        try bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return name
    }

    /// A and B.
    private struct Projections {
        private let rank: Int
        /// Columns of A.
        private let width: Int
        private let first: Operand
        private let second: Operand

        /// - Parameter halves: A has as many times `rank` rows, of which the first `rank` are used.
        init(
            name: String, rank: Int, halves: Int, targets: [BaseModule],
            _ tensors: inout AdapterTensors, _ builder: AdapterProgramBuilder
        ) throws(AdapterError) {
            self.rank = rank
            let dimensions = targets.map { builder.dimensions(of: $0) }
            let largestIn = dimensions.map(\.inFeatures).max() ?? 0
            let largestOut = dimensions.map(\.outFeatures).max() ?? 0
            let names = ["base_model.\(name)_A", "base_model.\(name)_B"]
            guard try !tensors.source.flag("save_projection", default: true) else {
                let down = try tensors.require(names[0], shape: [halves * rank, nil])
                let up = try tensors.require(names[1], shape: [nil, rank])
                guard down.shape[1] >= largestIn, up.shape[0] >= largestOut else {
                    throw tensors.source.badTensor(
                        down.shape[1] < largestIn ? down.name : up.name,
                        "is smaller than the largest target")
                }
                (width, first, second) = (down.shape[1], .tensor(down), .tensor(up))
                return
            }
            // peft draws them anew even where they are saved.
            tensors.discard { names.contains($0) }
            width = largestIn
            let seed = try tensors.source.seed("projection_prng_key", default: 0)
            let counts = [halves * rank * largestIn, largestOut * rank]
            let drawn = SharedOperands(
                key: "projections", counts: counts, usesOfEach: targets.count
            ) { _ in
                var generator = TorchGenerator(seed: seed)
                func draw(_ count: Int, _ fan: Int) -> [Float] {
                    let bound = Float(
                        3.0.squareRoot() * (2.0.squareRoot() / Double(fan).squareRoot()))
                    return generator.uniform(count: count, from: -bound, to: bound)
                }
                return [draw(counts[0], largestIn), draw(counts[1], rank)]
            }
            (first, second) = (drawn[0], drawn[1])
        }

        func down(columns: Int) -> Operand {
            .corner(of: first, width: width, rows: rank, columns: columns)
        }

        func up(rows: Int) -> Operand {
            .corner(of: second, width: rank, rows: rows, columns: rank)
        }
    }
}

extension AdapterSource {
    /// A seed of torch's generators.
    func seed(_ field: String, default other: Int) throws(AdapterError) -> Int {
        guard let value = present(field) else { return other }
        guard let seed = value.integerValue, seed >= 0 else {
            throw bad(field, "is not a whole number of at least 0")
        }
        return seed
    }
}
