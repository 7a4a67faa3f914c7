/// A plain LoRA adapter's factors by module, for merging.
struct LoRAFactorFile: Sendable {
    struct Factors: Sendable {
        /// `[rank, inFeatures]`; of the embedding `[rank, vocabularySize]`.
        let down: SafetensorsFile.Tensor
        /// `[outFeatures, rank]`
        let up: SafetensorsFile.Tensor
        let scale: Float

        var rank: Int { down.shape[0] }
    }

    let name: String
    let weight: Double
    let factors: [BaseModule: Factors]
    /// The largest of the factors'.
    let rank: Int
    let baseModelName: String?
    private let files: AdapterFiles

    /// - Throws: `AdapterError` with the adapter's name in front, of kind `unsupported` where it is
    ///   more than LoRA.
    init(_ input: MergeInput, _ configuration: ModelConfiguration) throws(AdapterError) {
        name = input.name
        weight = input.weight
        do throws(AdapterError) {
            files = try AdapterFiles(directory: input.directory)
            if let checksums = input.checksums { try files.check(checksums) }
            let source = try AdapterSource(files)
            let (operations, method) = try AdapterCompiler.operations(of: source, configuration)
            guard ["lora", "rslora"].contains(method), operations.isPlainLowRank else {
                throw AdapterError(
                    .unsupported,
                    "cannot be merged (\(method)): only LoRA's factors A and B can, without "
                        + "biases, magnitudes or modules saved whole")
            }
            factors = try Self.factors(source, operations)
            rank = factors.values.map(\.rank).max() ?? 0
            baseModelName = try source.string("base_model_name_or_path")
        } catch {
            throw AdapterError(error.kind, "\(input.name): \(error.message)")
        }
    }

    private static func factors(
        _ source: AdapterSource, _ operations: AdapterProgramBuilder
    ) throws(AdapterError) -> [BaseModule: Factors] {
        var scales = operations.operations.compactMapValues { $0.lowRanks.first?.scale }
        scales[.embedding] = operations.embeddingLowRanks.first?.scale
        var tensors = AdapterTensors(source, configuration: operations.configuration)
        var factors: [BaseModule: Factors] = [:]
        for (module, scale) in scales {
            let isEmbedding = module == .embedding
            factors[module] = Factors(
                down: try tensors.require(
                    module, isEmbedding ? "lora_embedding_A" : "lora_A", shape: [nil, nil]),
                up: try tensors.require(
                    module, isEmbedding ? "lora_embedding_B" : "lora_B", shape: [nil, nil]),
                scale: scale)
        }
        return factors
    }

    /// A module's tensors as peft names them.
    static func names(of module: BaseModule) -> (down: String, up: String) {
        let path = "\(AdapterTensors.prefix)\(module.path)"
        if module == .embedding {
            return ("\(path).lora_embedding_A", "\(path).lora_embedding_B")
        }
        return ("\(path).lora_A.weight", "\(path).lora_B.weight")
    }
}

extension AdapterProgramBuilder {
    /// Whether there is one `s · B A` at each module, and nothing else.
    fileprivate var isPlainLowRank: Bool {
        obstacleToSums == nil && embeddingLowRanks.count <= 1
            && operations.values.allSatisfy {
                $0.lowRanks.count == 1 && $0.dense.isEmpty && $0.sparse.isEmpty
                    && $0.kroneckers.isEmpty && $0.circulants.isEmpty && $0.biases.isEmpty
            }
    }
}
