import LorryTensor

/// LoRA (arXiv 2106.09685) and what peft's `LORA` type has grown into:
/// `y = W x + b + s · B (A x)` with `s = alpha / r`, or `alpha / √r` with `use_rslora`.
///
/// `rank_pattern`, `alpha_pattern`, `lora_bias` (adds `s · bias`), `bias` (`all`, `lora_only`),
/// DoRA (arXiv 2402.09353), embeddings and head as targets, `modules_to_save`,
/// `trainable_token_indices`, KaSA, BD-LoRA, PiSSA and OLoRA, activated LoRA. Tensors, as peft 0.21
/// saves them:
///
///     base_model.model.<module>.lora_A.weight  [r, inFeatures]
///     base_model.model.<module>.lora_B.weight  [outFeatures, r]
///     base_model.model.<module>.lora_B.bias    [outFeatures]
///     base_model.model.<module>.lora_magnitude_vector  [outFeatures]
///     base_model.model.<module>.lora_diag      [r]
///     base_model.model.model.embed_tokens.lora_embedding_A  [r, vocabularySize]
///     base_model.model.model.embed_tokens.lora_embedding_B  [hiddenSize, r]
struct LoRAMethod: PEFTMethod {
    let peftTypes = ["LORA"]
    /// The largest rank that is served.
    private static let maximumRank = 512

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        let options = try LoRAOptions(source)
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        // Left over by the training of variants; not used when serving.
        tensors.discard {
            $0.contains(".lora_monteclora_sampler.") || $0.hasSuffix(".lora_velora_embed")
        }
        try SavedModules.add(from: &tensors, to: &builder)
        try addTokenRows(&tensors, &builder)
        let targets = try tensors.targets(havingAnyOf: ["lora_A", "lora_embedding_A"])
        for module in targets {
            if module == .embedding {
                try addEmbedding(options, &tensors, &builder)
            } else {
                try addLinear(module, options, &tensors, &builder)
            }
        }
        try options.bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        builder.invocationTokens = try invocationTokens(
            source, replacesBias: builder.operations.values.contains(where: \.replacesBias),
            hasTables: !builder.tables.isEmpty || !builder.tableRows.isEmpty)
        return name(options, builder)
    }

    private func name(_ options: LoRAOptions, _ builder: AdapterProgramBuilder) -> String {
        if builder.invocationTokens != nil { return "alora" }
        if options.isDecomposed { return "dora" }
        if options.hasSingularDiagonal { return "kasa" }
        if options.blockDiagonal != nil { return "bdlora" }
        switch options.initialization {
        case .pissa: return "pissa"
        case .olora: return "olora"
        case .none: return options.isRankStabilized ? "rslora" : "lora"
        }
    }

    // MARK: - Linear layers and the head

    private func addLinear(
        _ module: BaseModule, _ options: LoRAOptions, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let source = tensors.source
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let down = try tensors.require(module, "lora_A", shape: [nil, nil])
        let rank = down.shape[0]
        let up = try tensors.require(module, "lora_B", shape: [outFeatures, nil])
        try check(rank, down, source)
        let scale = try options.scaling(
            module.path, rank: rank, tensor: down.name, limit: min(outFeatures, inFeatures), source)
        let factors = try options.factors(
            module, down: down, up: up, rank: rank,
            dimensions: (outFeatures, inFeatures), source)
        if options.hasSingularDiagonal {
            let diagonal = try tensors.require(module, "lora_diag", shape: [rank])
            builder.addLowRank(
                at: module, rank: rank, down: factors.down,
                up: Self.scaleColumns(factors.up, by: .tensor(diagonal)), scale: scale)
        } else {
            builder.addLowRank(
                at: module, rank: rank, down: factors.down, up: factors.up, scale: scale)
        }
        try changeBase(module, options, rank: rank, scale: scale, source, &builder)
        if options.isDecomposed {
            try addMagnitude(module, &tensors, &builder)
        }
        try addDeltaBias(module, options, scale: scale, &tensors, &builder)
    }

    /// Does to the base's weight what peft does to it when it loads the adapter.
    private func changeBase(
        _ module: BaseModule, _ options: LoRAOptions, rank: Int, scale: Float,
        _ source: AdapterSource, _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        guard options.hasSingularDiagonal || options.initialization != .none else { return }
        if module == .head {
            // The head that the file has is the changed one.
            guard !builder.hasTable(.head) else { return }
            guard !builder.configuration.tiesEmbeddings else {
                throw source.unsupported(
                    "init_lora_weights",
                    "changes the embedding too, which is tied to lm_head; save the adapter with "
                        + "save_embedding_layers")
            }
        }
        // Norms read the parts a second time.
        let uses = options.isDecomposed ? 2 : 1
        if options.hasSingularDiagonal {
            SingularParts.subtractSmallest(rank, of: module, from: &builder)
        }
        switch options.initialization {
        case .none: break
        case .pissa:
            SingularParts.subtractLargest(rank, of: module, usesOfEach: uses, from: &builder)
        case .olora:
            SingularParts.subtractOrthogonal(
                rank, of: module, scale: scale, usesOfEach: uses, from: &builder)
        }
    }

    private func check(
        _ rank: Int, _ down: SafetensorsFile.Tensor, _ source: AdapterSource
    ) throws(AdapterError) {
        guard (1...Self.maximumRank).contains(rank) else {
            throw source.badTensor(
                down.name, "has rank \(rank), served are 1 to \(Self.maximumRank)")
        }
    }

    private func addDeltaBias(
        _ module: BaseModule, _ options: LoRAOptions, scale: Float,
        _ tensors: inout AdapterTensors, _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let source = tensors.source
        let name = "\(AdapterTensors.prefix)\(module.path).lora_B.bias"
        let outFeatures = builder.dimensions(of: module).outFeatures
        if let bias = tensors.take(name) {
            guard options.hasDeltaBias else {
                throw source.badTensor(name, "is there, but lora_bias is not set")
            }
            try tensors.check(bias, shape: [outFeatures])
            builder.addBias(at: module, vector: .tensor(bias), scale: scale)
        } else if options.hasDeltaBias {
            throw source.bad("lora_bias", "is set, but \(module.path) has no lora_B.bias")
        }
    }

    /// `B · diag(d)`, B `[outFeatures, r]`.
    private static func scaleColumns(_ matrix: Operand, by vector: Operand) -> Operand {
        .derived(count: matrix.count) { reader throws(AdapterError) in
            let (floats, factors) = (try reader.floats(matrix), try reader.floats(vector))
            return floats.indices.map { floats[$0] * factors[$0 % factors.count] }
        }
    }

    // MARK: - DoRA

    /// `y = (m / n) ⊙ (W x + s B A x) + b`, with the norms n of the rows of `W + s B A`; W is what
    /// the initialization left of the base's.
    private func addMagnitude(
        _ module: BaseModule, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let magnitude = TensorPlace(
            try tensors.require(module, "lora_magnitude_vector", shape: [outFeatures]))
        let weight = builder.weight(of: module)
        let deltas = builder.operations[module]?.lowRanks ?? []
        builder.setOutputScaleWithoutBias(
            at: module,
            vector: .derived(count: outFeatures) { reader throws(AdapterError) in
                let (down, up) = try Self.joined(deltas, outFeatures: outFeatures, reader)
                let norms = DecomposedNorms(
                    weight: try reader.floats(weight), isTransposed: false, down: down, up: up,
                    rank: down.count / inFeatures, outFeatures: outFeatures,
                    inFeatures: inFeatures, scale: 1)
                return norms.ratios(of: reader.floats(magnitude))
            })
    }

    /// Several products of factors as one, scales included.
    private static func joined(
        _ deltas: [AdapterProgramBuilder.LowRank], outFeatures: Int, _ reader: OperandReader
    ) throws(AdapterError) -> (down: [Float], up: [Float]) {
        var down: [Float] = []
        var ups: [(floats: [Float], delta: AdapterProgramBuilder.LowRank)] = []
        for delta in deltas {
            down += try reader.floats(delta.down)
            ups.append((try reader.floats(delta.up), delta))
        }
        var up: [Float] = []
        up.reserveCapacity(ups.reduce(0) { $0 + $1.floats.count })
        for row in 0..<outFeatures {
            for (floats, delta) in ups {
                let start = row * delta.rank
                up += floats[start..<start + delta.rank].lazy.map { $0 * delta.scale }
            }
        }
        return (down, up)
    }

    // MARK: - Embedding

    /// `e = (m / n) ⊙ (E[t] + s · B A[:, t])`, with the norms n of dimensions over the vocabulary.
    private func addEmbedding(
        _ options: LoRAOptions, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (hiddenSize, tokenCount) = (builder.configuration.hiddenSize, builder.vocabularySize)
        guard options.initialization == .none, options.blockDiagonal == nil else {
            throw tensors.source.unsupported(
                "target_modules", "'embed_tokens' is not supported as a target of this variant")
        }
        let down = try tensors.require(.embedding, "lora_embedding_A", shape: [nil, tokenCount])
        let rank = down.shape[0]
        try check(rank, down, tensors.source)
        let up = try tensors.require(.embedding, "lora_embedding_B", shape: [hiddenSize, rank])
        let scale = try options.scaling(
            BaseModule.embedding.path, rank: rank, tensor: down.name, tensors.source)
        let (downPlace, upPlace) = (TensorPlace(down), TensorPlace(up))
        builder.addEmbeddingLowRank(
            rank: rank,
            down: .derived(count: down.elementCount) { reader in
                transpose(reader.floats(downPlace), rowCount: rank)
            },
            up: .tensor(up), scale: scale)
        guard options.isDecomposed else { return }
        let magnitude = TensorPlace(
            try tensors.require(.embedding, "lora_magnitude_vector", shape: [hiddenSize]))
        let table = builder.weight(of: .embedding)
        builder.setEmbeddingScale(
            .derived(count: hiddenSize) { reader throws(AdapterError) in
                let norms = DecomposedNorms(
                    weight: try reader.floats(table), isTransposed: true,
                    down: reader.floats(downPlace), up: reader.floats(upPlace), rank: rank,
                    outFeatures: hiddenSize, inFeatures: tokenCount, scale: scale)
                return norms.ratios(of: reader.floats(magnitude))
            })
    }

    /// `trainable_token_indices`: a list of the embedding's, or an object by module.
    private func addTokenRows(
        _ tensors: inout AdapterTensors, _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let field = "trainable_token_indices"
        guard let value = tensors.source.present(field), !value.isNeutral else { return }
        var lists: [(name: String, StrictJSON)] = [("embed_tokens", value)]
        if let object = value.objectValue { lists = object.members.map { ($0.key, $0.value) } }
        var rows: [(module: BaseModule, tokens: [Int32])] = []
        for (name, list) in lists {
            let module: BaseModule? =
                switch name {
                case "embed_tokens", BaseModule.embedding.path: .embedding
                case BaseModule.head.path: .head
                default: nil
                }
            guard let module, !rows.contains(where: { $0.module == module }) else {
                throw tensors.source.unsupported(
                    field, "'\(name)' is not supported, only embed_tokens and lm_head are")
            }
            rows.append((module, try TokenRows.list(list, field: field, tensors.source)))
        }
        let embedded = rows.first { $0.module == .embedding }
        // A head that is tied follows the embedding, unless other tokens are listed for it.
        if let embedded, builder.configuration.tiesEmbeddings,
            rows.allSatisfy({ $0.tokens == embedded.tokens })
        {
            tensors.discard { $0 == "\(AdapterTensors.prefix)lm_head.\(Self.tokenRows)" }
            rows = [embedded]
        }
        for (module, tokens) in rows {
            let tensor = try tensors.require(module, Self.tokenRows, shape: [nil, nil])
            let modules: [BaseModule] =
                rows.count == 1 && module == .embedding && builder.configuration.tiesEmbeddings
                ? [.embedding, .head] : [module]
            try TokenRows.add(tokens, tensor, at: modules, field: field, tensors, to: &builder)
        }
    }

    private static let tokenRows = "token_adapter.trainable_tokens_delta"

    // MARK: - Activated LoRA

    /// aLoRA (arXiv 2504.12397): the adapter acts from these tokens on.
    private func invocationTokens(
        _ source: AdapterSource, replacesBias: Bool, hasTables: Bool
    ) throws(AdapterError) -> [Int32]? {
        let field = "alora_invocation_tokens"
        guard let value = source.present(field), !value.isNeutral else { return nil }
        let tokens = try TokenRows.list(value, field: field, source)
        for other in ["modules_to_save", "trainable_token_indices"] {
            guard source.present(other)?.isNeutral ?? true else {
                throw source.unsupported(
                    other,
                    "acts before \(field) too, and on prompts without them, which is not "
                        + "supported")
            }
        }
        guard !hasTables else {
            throw AdapterError(
                .unsupported,
                "\(source.weightsName): a saved embedding or head acts before \(field) too, "
                    + "which is not supported")
        }
        guard !replacesBias else {
            throw source.unsupported(
                "bias",
                "acts before \(field) too, and on prompts without them, which is not "
                    + "supported")
        }
        return tokens
    }
}

/// A and B of a module as they act.
struct LoRAFactors {
    var down: Operand
    var up: Operand
}

extension LoRAOptions {
    /// A `[r, inFeatures]` and B `[outFeatures, r]` of a module; BD-LoRA's blocks laid out whole.
    func factors(
        _ module: BaseModule, down: SafetensorsFile.Tensor, up: SafetensorsFile.Tensor, rank: Int,
        dimensions: (outFeatures: Int, inFeatures: Int), _ source: AdapterSource
    ) throws(AdapterError) -> LoRAFactors {
        let (outFeatures, inFeatures) = dimensions
        func isNamed(_ names: [String]) -> Bool {
            names.contains { module.path == $0 || module.path.hasSuffix(".\($0)") }
        }
        let blocks = blockDiagonal
        let isBlockA = blocks.map { isNamed($0.modulesOfA) } ?? false
        let isBlockB = blocks.map { isNamed($0.modulesOfB) } ?? false
        let count = blocks?.blockCount ?? 1
        guard down.shape == [rank, isBlockA ? inFeatures / count : inFeatures] else {
            throw source.badTensor(
                down.name, "has shape \(down.shape), expected [rank, \(inFeatures)]")
        }
        guard up.shape == [outFeatures, isBlockB ? rank / count : rank] else {
            throw source.badTensor(
                up.name, "has shape \(up.shape), expected [\(outFeatures), \(rank)]")
        }
        guard !isBlockA || (rank % count == 0 && inFeatures % count == 0),
            !isBlockB || (rank % count == 0 && outFeatures % count == 0)
        else {
            throw source.bad("use_bdlora.nblocks", "does not divide \(module.path)")
        }
        return LoRAFactors(
            down: isBlockA ? Self.diagonal(down, blockCount: count) : .tensor(down),
            up: isBlockB ? Self.diagonal(up, blockCount: count) : .tensor(up))
    }

    /// Rows `[m, n / blockCount]`, laid out as `[m, n]` with each block of rows at its columns.
    private static func diagonal(_ tensor: SafetensorsFile.Tensor, blockCount: Int) -> Operand {
        let place = TensorPlace(tensor)
        let (rowCount, width) = (tensor.shape[0], tensor.shape[1])
        return .derived(count: place.count * blockCount) { reader in
            let floats = reader.floats(place)
            var whole = [Float](repeating: 0, count: place.count * blockCount)
            for row in 0..<rowCount {
                let block = row / (rowCount / blockCount)
                let start = row * width * blockCount + block * width
                for column in 0..<width { whole[start + column] = floats[row * width + column] }
            }
            return whole
        }
    }
}
