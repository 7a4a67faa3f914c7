import LorryTensor

/// BOFT (arXiv 2311.06243): `y = s ⊙ (W x') + b`, where x passes the butterfly factors from the
/// last to the first, each `xᵀ ← xᵀ P diag(R₀, R₁, …) Pᵀ` with Cayley's transform R of
/// `(A - Aᵀ) / 2` and a permutation P of half blocks. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.boft_R  [factors, blocks, blockSize, blockSize]
///     base_model.model.<module>.boft_s  [outFeatures, 1]
struct BOFTMethod: PEFTMethod {
    let peftTypes = ["BOFT"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "boft_block_size", "boft_block_num", "boft_n_butterfly_factor", "boft_dropout",
            "fan_in_fan_out", "bias", "init_weights",
        ])
        let biases = try SavedBiases(source, only: "boft_only")
        let factorCount = try source.integer("boft_n_butterfly_factor") ?? 1
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "boft_R")
        for module in targets { try add(module, factorCount, &tensors, &builder) }
        try biases.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "boft"
    }

    private func add(
        _ module: BaseModule, _ factorCount: Int, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let tensor = try tensors.require(module, "boft_R", shape: [factorCount, nil, nil, nil])
        let (count, size) = (tensor.shape[1], tensor.shape[2])
        guard tensor.shape[3] == size, count * size == inFeatures else {
            throw tensors.source.badTensor(
                tensor.name,
                "has shape \(tensor.shape), which are no square blocks of \(inFeatures)")
        }
        // Each factor mixes blocks twice as far apart as the one before it.
        guard
            factorCount == 1
                || size % 2 == 0 && factorCount <= 32 && count % (1 << (factorCount - 1)) == 0
        else {
            throw tensors.source.badTensor(
                tensor.name, "has \(count) blocks of \(size), too few for \(factorCount) factors")
        }
        let place = TensorPlace(tensor)
        let area = count * size * size
        var steps: [AdapterProgramBuilder.InputStep] = []
        for factor in (0..<factorCount).reversed() {
            let rotations = Operand.derived(count: area) { reader throws(AdapterError) in
                let blocks = Array(reader.floats(place)[factor * area..<(factor + 1) * area])
                return try BlockRotations.cayley(
                    BlockRotations.skewSymmetric(of: blocks, size: size), size: size)
            }
            let blocks = AdapterProgramBuilder.InputStep.blocks(
                rotations, blockSize: size, count: count, isShared: false)
            if factor == 0 {
                // The first factor's permutation is none.
                steps.append(blocks)
            } else {
                let order = Self.butterfly(
                    width: inFeatures, span: size << factor, half: size / 2)
                steps += [.gather(Self.inverse(order)), blocks, .gather(order)]
            }
        }
        builder.transformInput(of: module, steps)
        let scale = try tensors.require(module, "boft_s", shape: [outFeatures, 1])
        builder.setOutputScaleWithoutBias(at: module, vector: .tensor(scale))
    }

    /// Within each span, the half blocks at even places come before those at odd ones.
    private static func butterfly(width: Int, span: Int, half: Int) -> [UInt32] {
        let places = span / half
        let order = Array(stride(from: 0, to: places, by: 2)) + stride(from: 1, to: places, by: 2)
        var indices: [UInt32] = []
        indices.reserveCapacity(width)
        for start in stride(from: 0, to: width, by: span) {
            for place in order {
                let first = start + place * half
                indices += (first..<first + half).map { UInt32($0) }
            }
        }
        return indices
    }

    private static func inverse(_ order: [UInt32]) -> [UInt32] {
        var result = [UInt32](repeating: 0, count: order.count)
        for (place, source) in order.enumerated() { result[Int(source)] = UInt32(place) }
        return result
    }
}
