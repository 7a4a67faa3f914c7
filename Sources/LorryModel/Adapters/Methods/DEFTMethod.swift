import LorryTensor

/// DEFT (arXiv 2505.21062) and PaRa (`para`): takes a subspace out of W, and puts another in:
/// `y = W x + Q (s R x - Tᵀ W x) + b`, for PaRa without R. With `decomposition_method` relu `Q = P`
/// and `T = max(P, 0)`; with qr both are the Q of P's QR decomposition, whose signs are LAPACK's.
/// `s = alpha / r`, or 1 without an alpha. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.deft_P  [outFeatures, r]
///     base_model.model.<module>.deft_R  [r, inFeatures]
///
/// A delta of rank r with `s R - Tᵀ W` made when the adapter is brought into memory.
struct DEFTMethod: PEFTMethod {
    let peftTypes = ["DEFT"]

    private struct Options {
        let isOrthogonal: Bool
        let hasInjection: Bool
        /// Zero where it is not set.
        let alpha: Double
    }

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "r", "decomposition_method", "init_scale", "alpha", "para", "fan_in_fan_out",
            "deft_dropout", "init_weights", "bias",
        ])
        let biases = try SavedBiases(source, only: "deft_only")
        let method = try source.string("decomposition_method") ?? "relu"
        guard ["relu", "qr"].contains(method) else {
            throw source.bad("decomposition_method", "is neither relu nor qr")
        }
        let options = Options(
            isOrthogonal: method == "qr", hasInjection: !(try source.flag("para")),
            alpha: try source.number("alpha") ?? 0)
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "deft_P")
        for module in targets { try add(module, options, &tensors, &builder) }
        try biases.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return options.hasInjection ? "deft" : "para"
    }

    private func add(
        _ module: BaseModule, _ options: Options, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let projection = try tensors.require(module, "deft_P", shape: [outFeatures, nil])
        let rank = projection.shape[1]
        guard rank <= outFeatures else {
            throw tensors.source.badTensor(
                projection.name, "has \(rank) directions of \(outFeatures) outputs")
        }
        var injection: TensorPlace?
        if options.hasInjection {
            injection = TensorPlace(
                try tensors.require(module, "deft_R", shape: [rank, inFeatures]))
        }
        let scale =
            options.alpha == 0
            ? 1 : try tensors.source.scale("alpha", options.alpha / Double(rank))
        let weight = builder.weight(of: module)
        let place = TensorPlace(projection)
        let factors = SharedOperands(
            key: "projection of \(module.path)",
            counts: [rank * inFeatures, outFeatures * rank]
        ) { [injection] reader throws(AdapterError) in
            var directions = reader.floats(place)
            if options.isOrthogonal {
                directions = try reader.orthogonalParts(
                    of: .constant(directions), rows: outFeatures, columns: rank
                ).q
            }
            let removed = options.isOrthogonal ? directions : directions.map { max($0, 0) }
            var down = DenseAlgebra.product(
                .init(removed, .transposed), .init(try reader.floats(weight)), m: rank,
                n: inFeatures, k: outFeatures)
            if let injection {
                let added = reader.floats(injection)
                for index in down.indices { down[index] = scale * added[index] - down[index] }
            } else {
                for index in down.indices { down[index] = -down[index] }
            }
            return [down, directions]
        }
        builder.addProduct(at: module, rank: rank, down: factors[0], up: factors[1])
    }
}
