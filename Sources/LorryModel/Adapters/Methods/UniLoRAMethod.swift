import LorryTensor

/// Uni-LoRA (arXiv 2506.00799): LoRA without a scale, whose A and B consist of the numbers of one
/// vector θ, each divided by the root of how often it is used.
///
/// Where the file does not say which number goes where, it is drawn as peft does: each of θ's indices
/// as often as the next, what is left over by numpy's `choice`, all of them shuffled, and dealt out
/// to A and B of one target after the other. Tensors, as peft 0.21 saves them:
///
///     base_model.unilora_theta_d  [theta_d_length]
///     base_model.model.<module>.unilora_indices_A  [r, inFeatures], unilora_scales_A likewise
///     base_model.model.<module>.unilora_indices_B  [outFeatures, r], unilora_scales_B likewise
struct UniLoRAMethod: PEFTMethod {
    let peftTypes = ["UNILORA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "bias", "fan_in_fan_out", "init_theta_d_bound", "init_weights", "proj_seed", "r",
            "save_indices", "theta_d_length", "unilora_dropout",
        ])
        let rank = try source.rank("r", default: 4)
        let bias = try SavedBiases(source, only: "unilora_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let theta = try tensors.require("base_model.unilora_theta_d", shape: [nil])
        let length = theta.shape[0]
        if let declared = try source.integer("theta_d_length"), declared != length {
            throw source.badTensor(
                theta.name, "has \(length) numbers, theta_d_length is \(declared)")
        }
        let targets: [BaseModule]
        if try source.flag("save_indices") {
            targets = try addSaved(rank: rank, TensorPlace(theta), &tensors, &builder)
        } else {
            targets = try addDrawn(rank: rank, TensorPlace(theta), &tensors, &builder)
        }
        try bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "unilora"
    }

    // MARK: - Saved indices

    private func addSaved(
        rank: Int, _ theta: TensorPlace, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> [BaseModule] {
        let targets = try tensors.linearTargets(having: "unilora_indices_A")
        for module in targets {
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            builder.addProduct(
                at: module, rank: rank,
                down: try saved(module, "A", [rank, inFeatures], theta, &tensors),
                up: try saved(module, "B", [outFeatures, rank], theta, &tensors))
        }
        return targets
    }

    private func saved(
        _ module: BaseModule, _ letter: String, _ shape: [Int], _ theta: TensorPlace,
        _ tensors: inout AdapterTensors
    ) throws(AdapterError) -> Operand {
        let indices = TensorPlace(
            try tensors.requireIntegers(module, "unilora_indices_\(letter)", shape: shape))
        let scales = TensorPlace(
            try tensors.require(module, "unilora_scales_\(letter)", shape: shape))
        return .derived(count: indices.count) { reader throws(AdapterError) in
            let (numbers, places) = (reader.floats(theta), reader.integers(indices))
            guard places.allSatisfy(numbers.indices.contains) else {
                throw indices.bad("has an index outside 0..<\(numbers.count)")
            }
            return zip(places, reader.floats(scales)).map { numbers[$0] * $1 }
        }
    }

    // MARK: - Drawn indices

    private func addDrawn(
        rank: Int, _ theta: TensorPlace, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> [BaseModule] {
        let source = tensors.source
        // peft draws them anew even where they are saved against the configuration.
        tensors.discard { $0.contains(".unilora_indices_") || $0.contains(".unilora_scales_") }
        guard
            let targets = try ModuleTargets(source: source, configuration: builder.configuration)
                .selected()
        else { throw source.bad("target_modules", "is missing") }
        guard !targets.isEmpty else { throw source.bad("target_modules", "selects no module") }
        for module in targets where !module.isLinear {
            throw source.unsupported(
                "target_modules", "'\(module.path)' is not supported as a target of this method")
        }
        let dimensions = targets.map { builder.dimensions(of: $0) }
        let counts = dimensions.flatMap { [rank * $0.inFeatures, $0.outFeatures * rank] }
        let seed = UInt64(try source.seed("proj_seed", default: 42))
        let total = counts.reduce(0, +)
        builder.noteComputation(of: 2 * total)
        guard total < Int32.max, theta.count < Int32.max else {
            throw source.unsupported("r", "asks for more numbers than are drawn alike")
        }
        let operands = SharedOperands(key: "indices", counts: counts) { reader in
            let indices = Self.indices(count: total, length: theta.count, seed: seed)
            var uses = [Int](repeating: 0, count: theta.count)
            for index in indices { uses[Int(index)] += 1 }
            let numbers = zip(reader.floats(theta), uses).map { number, uses in
                uses > 0 ? number / Float(uses).squareRoot() : 0
            }
            var start = 0
            return counts.map { count in
                defer { start += count }
                return indices[start..<start + count].map { numbers[Int($0)] }
            }
        }
        for (index, module) in targets.enumerated() {
            builder.addProduct(
                at: module, rank: rank, down: operands[2 * index], up: operands[2 * index + 1])
        }
        return targets
    }

    /// θ's index of each number.
    private static func indices(count: Int, length: Int, seed: UInt64) -> [Int32] {
        var generator = NumpyGenerator(seed: seed)
        var indices: [Int32] = []
        indices.reserveCapacity(count)
        for index in 0..<length {
            for _ in 0..<count / length { indices.append(Int32(index)) }
        }
        if count % length > 0 { indices += generator.choice(of: length, count: count % length) }
        generator.shuffle(&indices)
        return indices
    }
}
