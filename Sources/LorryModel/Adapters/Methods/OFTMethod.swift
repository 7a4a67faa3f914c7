import LorryTensor

/// OFT (arXiv 2306.07280, 2506.19847): `y = W x' + b` with `x'ᵀ = xᵀ diag(R₀, R₁, …)`, where each
/// R is Cayley's transform of a skew-symmetric Q, exact or with a cut Neumann series. With `coft`
/// a Q longer than `eps / √blocks` (Frobenius) is shortened to that; with `block_share` one R
/// serves all blocks. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.oft_R.weight  [blocks or 1, k (k - 1) / 2]
///     base_model.model.model.embed_tokens.oft_embedding_R.weight  the same, of hiddenSize inputs
///
/// with the upper triangle of Q row by row, for blocks of k = inFeatures / blocks inputs.
struct OFTMethod: PEFTMethod {
    let peftTypes = ["OFT"]

    private struct Options {
        let isShared: Bool
        /// The length that COFT allows, before it is divided by √blocks.
        let limit: Float?
        /// Nil: the exact transform.
        let termCount: Int?
    }

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        let options = try options(source)
        let biases = try SavedBiases(source, only: "oft_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        if let old = source.tensors.keys.filter({ $0.contains(".oft_r") }).min() {
            throw AdapterError(
                .unsupported,
                "\(source.weightsName): tensor '\(old)' is of OFT before peft 0.14, which "
                    + "was another method")
        }
        let targets = try tensors.targets(havingAnyOf: ["oft_R", "oft_embedding_R"])
        for module in targets { try add(module, options, &tensors, &builder) }
        try biases.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return options.limit == nil ? "oft" : "coft"
    }

    private func options(_ source: AdapterSource) throws(AdapterError) -> Options {
        try source.refuseUnknownFields(known: [
            "r", "oft_block_size", "module_dropout", "fan_in_fan_out", "bias", "init_weights",
            "coft", "eps", "block_share", "use_cayley_neumann", "num_cayley_neumann_terms",
        ])
        guard source.configuration["oft_block_size"] != nil else {
            throw source.unsupported(
                "oft_block_size", "is missing, as in OFT before peft 0.14, which was another method"
            )
        }
        var limit: Float?
        if try source.flag("coft") {
            limit = try source.scale("eps", try source.number("eps") ?? 6e-5)
        }
        // peft 0.18 changed the series, and began to write its version. Files without the field are
        // from before the series, or have its default.
        let isCurrent = try isCurrent(source)
        var termCount: Int?
        if try source.flag("use_cayley_neumann", default: isCurrent) {
            guard isCurrent else {
                throw source.unsupported(
                    "use_cayley_neumann", "is another series in adapters from before peft 0.18")
            }
            termCount = try source.integer("num_cayley_neumann_terms") ?? 5
            guard termCount ?? 0 <= 64 else {
                throw source.bad("num_cayley_neumann_terms", "is above 64")
            }
        }
        return Options(
            isShared: try source.flag("block_share"), limit: limit, termCount: termCount)
    }

    /// Whether peft 0.18 or a later one wrote the file.
    private func isCurrent(_ source: AdapterSource) throws(AdapterError) -> Bool {
        let parts = (try source.string("peft_version") ?? "0").split(separator: ".")
        let major = parts.first.flatMap { Int($0) } ?? 0
        let minor = parts.dropFirst().first.flatMap { Int($0) } ?? 0
        return major > 0 || minor >= 18
    }

    private func add(
        _ module: BaseModule, _ options: Options, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        // Embeddings are turned, not the one-hot vectors of tokens.
        let isEmbedding = module == .embedding
        let inFeatures =
            isEmbedding
            ? builder.configuration.hiddenSize : builder.dimensions(of: module).inFeatures
        let tensor = try tensors.require(
            module, isEmbedding ? "oft_embedding_R" : "oft_R",
            shape: [options.isShared ? 1 : nil, nil])
        let place = TensorPlace(tensor)
        let stored = tensor.shape[0]
        guard let size = Self.blockSize(triangle: tensor.shape[1]), inFeatures % size == 0,
            options.isShared || stored * size == inFeatures
        else {
            throw tensors.source.badTensor(
                tensor.name, "has shape \(tensor.shape), which fits no blocks of \(inFeatures)")
        }
        let rotations = Operand.derived(count: stored * size * size) {
            reader throws(AdapterError) in
            var triangles = reader.floats(place)
            if let limit = options.limit {
                Self.shorten(&triangles, to: limit / Float(stored).squareRoot(), count: stored)
            }
            let blocks = BlockRotations.skewSymmetric(triangles: triangles, size: size)
            guard let termCount = options.termCount else {
                return try BlockRotations.cayley(blocks, size: size)
            }
            return BlockRotations.cayleyNeumann(blocks, size: size, termCount: termCount)
        }
        let step = AdapterProgramBuilder.InputStep.blocks(
            rotations, blockSize: size, count: inFeatures / size, isShared: options.isShared)
        if isEmbedding {
            builder.transformEmbedding([step])
        } else {
            builder.transformInput(of: module, [step])
        }
    }

    /// The k of which `k (k - 1) / 2` is the count.
    private static func blockSize(triangle count: Int) -> Int? {
        let size = Int((0.5 + (0.25 + 2 * Double(count)).squareRoot()).rounded())
        return size >= 2 && size < 1 << 20 && size * (size - 1) / 2 == count ? size : nil
    }

    /// Limits the length of each Q, which is √2 times that of its upper triangle.
    private static func shorten(_ triangles: inout [Float], to limit: Float, count: Int) {
        let width = triangles.count / count
        for start in stride(from: 0, to: triangles.count, by: width) {
            let range = start..<start + width
            let square = triangles[range].reduce(0) { $0 + 2 * Double($1) * Double($1) }
            let length = Float(square.squareRoot())
            guard length > limit else { continue }
            for index in range { triangles[index] *= limit / length }
        }
    }
}
