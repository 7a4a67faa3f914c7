import LorryTensor

/// GraLoRA (arXiv 2505.20355): k blocks of inputs and k of outputs, each pair of which shares r / k
/// of the ranks, and a LoRA over all beside them; the scale is `alpha / (r + hybrid_r)`.
///
/// Rank c of input block n feeds output block `j = c / s` alone, with `s = r / k`, as its row
/// `n · s + c mod s` of B: a product of rank `k · r` that is 0 elsewhere. Tensors, as peft 0.21
/// saves them:
///
///     base_model.model.<module>.gralora_A  [k, inFeatures / k, r]
///     base_model.model.<module>.gralora_B  [k, r, outFeatures / k]
///     base_model.model.<module>.gralora_A_general.weight  [hybrid_r, inFeatures]
///     base_model.model.<module>.gralora_B_general.weight  [outFeatures, hybrid_r]
struct GraLoRAMethod: PEFTMethod {
    let peftTypes = ["GRALORA"]

    private struct Options {
        let rank: Int
        let blockCount: Int
        let generalRank: Int
        let scale: Float
    }

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "alpha", "bias", "fan_in_fan_out", "gralora_dropout", "gralora_k", "hybrid_r",
            "init_weights", "r",
        ])
        let options = try options(source)
        let bias = try SavedBiases(source, only: "gralora_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "gralora_A")
        for module in targets { try add(module, options, &tensors, &builder) }
        try bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "gralora"
    }

    private func options(_ source: AdapterSource) throws(AdapterError) -> Options {
        let rank = try source.rank("r", default: 32)
        let blockCount = try source.integer("gralora_k") ?? 2
        var generalRank = 0
        if let value = source.present("hybrid_r") {
            guard let number = value.integerValue, number >= 0 else {
                throw source.bad("hybrid_r", "is not a whole number of at least 0")
            }
            generalRank = number
        }
        guard blockCount <= 64 else {
            throw source.unsupported("gralora_k", "\(blockCount) is above 64, the largest served")
        }
        guard rank % blockCount == 0 else { throw source.bad("gralora_k", "does not divide r") }
        let alpha = try source.number("alpha") ?? 64
        return Options(
            rank: rank, blockCount: blockCount, generalRank: generalRank,
            scale: try source.scale("alpha", alpha / (Double(rank) + Double(generalRank))))
    }

    private func add(
        _ module: BaseModule, _ options: Options, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let (rank, blockCount) = (options.rank, options.blockCount)
        guard outFeatures % blockCount == 0, inFeatures % blockCount == 0 else {
            throw tensors.source.bad("gralora_k", "does not divide \(module.path)")
        }
        let down = TensorPlace(
            try tensors.require(
                module, "gralora_A", shape: [blockCount, inFeatures / blockCount, rank]))
        let up = TensorPlace(
            try tensors.require(
                module, "gralora_B", shape: [blockCount, rank, outFeatures / blockCount]))
        let total = blockCount * rank
        builder.addProduct(
            at: module, rank: total,
            down: .derived(count: total * inFeatures) { reader in
                Self.spreadDown(reader.floats(down), rank: rank, inFeatures, blockCount)
            },
            up: .derived(count: outFeatures * total) { reader in
                Self.spreadUp(reader.floats(up), rank: rank, outFeatures, blockCount)
            }, scale: options.scale)
        guard options.generalRank > 0 else { return }
        let generalDown = try tensors.require(
            module, "gralora_A_general", shape: [options.generalRank, inFeatures])
        let generalUp = try tensors.require(
            module, "gralora_B_general", shape: [outFeatures, options.generalRank])
        builder.addProduct(
            at: module, rank: options.generalRank, down: .tensor(generalDown),
            up: .tensor(generalUp), scale: options.scale)
    }

    /// Row `n · rank + c` is column c of block n, at the block's inputs.
    private static func spreadDown(
        _ blocks: [Float], rank: Int, _ inFeatures: Int, _ blockCount: Int
    ) -> [Float] {
        var whole = [Float](repeating: 0, count: blockCount * rank * inFeatures)
        let width = inFeatures / blockCount
        for column in 0..<inFeatures {
            let row = column / width * rank
            for c in 0..<rank {
                whole[(row + c) * inFeatures + column] = blocks[column * rank + c]
            }
        }
        return whole
    }

    /// `[outFeatures, blockCount · rank]`
    private static func spreadUp(
        _ blocks: [Float], rank: Int, _ outFeatures: Int, _ blockCount: Int
    ) -> [Float] {
        let total = blockCount * rank
        var whole = [Float](repeating: 0, count: outFeatures * total)
        let (width, share) = (outFeatures / blockCount, rank / blockCount)
        for row in 0..<outFeatures {
            let (j, within) = row.quotientAndRemainder(dividingBy: width)
            for n in 0..<blockCount {
                for t in 0..<share {
                    whole[row * total + n * rank + j * share + t] =
                        blocks[(j * rank + n * share + t) * width + within]
                }
            }
        }
        return whole
    }
}
