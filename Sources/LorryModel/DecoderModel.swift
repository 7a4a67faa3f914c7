import Foundation
import LorryTensor

/// A frozen base model in memory: configuration and packed weights, never changed after loading.
public final class DecoderModel: Sendable {
    public let configuration: ModelConfiguration
    public let format: WeightFormat
    /// Bytes of packed weights and tables.
    public let byteCount: Int

    let layers: [LayerWeights]
    let embedding: Embedding
    /// `[vocabularySize, hiddenSize]`
    let head: PackedMatrix
    let finalNorm: [Float]
    let rotation: RotationTables

    /// The weights of one decoder layer.
    struct LayerWeights: Sendable {
        /// By `LinearGroup`.
        let linears: [PackedMatrix]
        /// By `LinearGroup`: `[outFeatures]` with zeros for sites without bias; nil where none has.
        let biases: [[Float]?]
        let attentionNorm: [Float]
        let feedForwardNorm: [Float]
    }

    /// Where token embeddings are read from.
    enum Embedding: Sendable {
        /// Tied: the head's own rows.
        case head
        /// Untied: rows of the mapped checkpoint, in its own precision.
        case mapped(SafetensorsFile.Tensor)
    }

    /// Loads a Hugging Face folder (`config.json`, `*.safetensors`).
    ///
    /// - Parameters:
    ///   - format: how to hold the weights; nil takes bf16 where the file has 16 bits, else f32.
    ///   - contextLength: positions to prepare; nil takes all that the model has.
    ///   - cache: where packed weights may lie from an earlier load; nil packs them.
    ///   - progress: called with the share of work done, from 0 to 1.
    /// - Throws: `ModelError` naming the file, field or tensor at fault.
    public init(
        directory: URL, format: WeightFormat?, contextLength: Int? = nil, pool: WorkerPool,
        cache: WeightCache? = nil, progress: (Double) -> Void = { _ in }
    ) throws(ModelError) {
        let configuration = try ModelConfiguration(directory: directory)
        var checkpoint = try Checkpoint(directory: directory)
        let format = format ?? (checkpoint.prevailingElementType == .f32 ? .f32 : .bf16)
        var collector = Collector(configuration: configuration, policy: WeightPolicy(format))
        for layer in 0..<configuration.layerCount {
            try collector.takeLayer(layer, from: &checkpoint)
        }
        embedding = try collector.takeHead(from: &checkpoint)
        finalNorm = try checkpoint.takeVector("model.norm.weight", count: configuration.hiddenSize)
        // Older checkpoints store the rotary frequencies, which follow from the configuration.
        checkpoint.discard { $0.hasSuffix(".rotary_emb.inv_freq") }
        try checkpoint.requireEmpty()
        let plan = collector.plan
        let matrices: [PackedMatrix]
        if let cache {
            matrices = try cache.matrices(
                of: plan, shards: checkpoint.shards, directory: directory, format: format,
                pool: pool, progress: progress)
        } else {
            matrices = try plan.pack(pool: pool, progress: progress).matrices
        }
        (layers, head) = collector.assemble(matrices)
        let positions = min(contextLength ?? .max, configuration.maximumPositions)
        rotation = RotationTables(
            configuration.rope, headDim: configuration.headDim, positionCount: positions,
            pool: pool)
        self.configuration = configuration
        self.format = format
        byteCount = plan.byteCount + rotation.byteCount
        progress(1)
    }

    /// Positions that the tables cover: the longest context that can be served.
    public var contextLength: Int { rotation.positionCount }

    /// Copies a token's embedding, `[hiddenSize]` in single precision.
    func copyEmbedding(_ token: Int, to target: UnsafeMutablePointer<Float>) {
        switch embedding {
        case .head: head.copyRow(token, to: target)
        case .mapped(let table): table.copyRow(token, to: target)
        }
    }

    /// A norm's weight. `[hiddenSize]`
    func norm(_ site: BaseModule.NormSite) -> [Float] {
        switch site {
        case .attention(let layer): layers[layer].attentionNorm
        case .feedForward(let layer): layers[layer].feedForwardNorm
        case .final: finalNorm
        }
    }

    /// The bias that the base adds at a site, or nil where it has none. `[outFeatures]`
    func bias(layer: Int, site: LinearSite) -> ArraySlice<Float>? {
        guard configuration.biasedSites.contains(site),
            let bias = layers[layer].biases[site.group.rawValue]
        else { return nil }
        let start = configuration.columnStart(of: site)
        return bias[start..<start + configuration.dimensions(of: site).outFeatures]
    }
}

extension SafetensorsFile.Tensor {
    /// Copies one row of a matrix in single precision.
    fileprivate func copyRow(_ row: Int, to target: UnsafeMutablePointer<Float>) {
        guard let elementType, shape.count == 2 else { return }
        let byteCount = shape[1] * elementType.byteCount
        // Safe because the bounds-checked slice covers exactly the row.
        let source = UnsafeRawBufferPointer(
            rebasing: bytes.bytes[row * byteCount..<(row + 1) * byteCount])
        if let base = source.baseAddress { widen(base, elementType, count: shape[1], to: target) }
    }
}

/// Takes a checkpoint's tensors, layer by layer, and plans how they are packed.
private struct Collector {
    let configuration: ModelConfiguration
    let policy: WeightPolicy
    private(set) var plan = PackingPlan()
    private var vectors: [LayerVectors] = []

    private struct LayerVectors {
        var biases: [[Float]?] = []
        var attentionNorm: [Float]
        var feedForwardNorm: [Float]
    }

    init(configuration: ModelConfiguration, policy: WeightPolicy) {
        self.configuration = configuration
        self.policy = policy
    }

    mutating func takeLayer(
        _ layer: Int, from checkpoint: inout Checkpoint
    ) throws(ModelError) {
        let path = "model.layers.\(layer)"
        var layerVectors = LayerVectors(
            attentionNorm: try checkpoint.takeVector(
                "\(path).input_layernorm.weight", count: configuration.hiddenSize),
            feedForwardNorm: try checkpoint.takeVector(
                "\(path).post_attention_layernorm.weight", count: configuration.hiddenSize))
        for group in LinearGroup.allCases {
            var tensors: [SafetensorsFile.Tensor] = []
            var bias: [Float] = []
            for site in group.sites {
                let (outFeatures, inFeatures) = configuration.dimensions(of: site)
                let path = site.path(layer: layer)
                tensors.append(
                    try checkpoint.take("\(path).weight", shape: [outFeatures, inFeatures]))
                if configuration.biasedSites.contains(site) {
                    bias += try checkpoint.takeVector("\(path).bias", count: outFeatures)
                } else {
                    bias += [Float](repeating: 0, count: outFeatures)
                }
            }
            plan.add(
                tensors, inFeatures: configuration.inFeatures(of: group), format: policy.linears)
            let hasBias = !configuration.biasedSites.isDisjoint(with: group.sites)
            layerVectors.biases.append(hasBias ? bias : nil)
        }
        vectors.append(layerVectors)
    }

    mutating func takeHead(
        from checkpoint: inout Checkpoint
    ) throws(ModelError) -> DecoderModel.Embedding {
        let shape = [configuration.vocabularySize, configuration.hiddenSize]
        let table = try checkpoint.take("model.embed_tokens.weight", shape: shape)
        if configuration.tiesEmbeddings { checkpoint.discard { $0 == "lm_head.weight" } }
        let weight =
            configuration.tiesEmbeddings
            ? table : try checkpoint.take("lm_head.weight", shape: shape)
        plan.add([weight], inFeatures: configuration.hiddenSize, format: policy.head)
        return configuration.tiesEmbeddings ? .head : .mapped(table)
    }

    /// - Parameter matrices: those of `plan`, packed.
    func assemble(
        _ matrices: [PackedMatrix]
    ) -> (layers: [DecoderModel.LayerWeights], head: PackedMatrix) {
        let groupCount = LinearGroup.allCases.count
        let layers = vectors.enumerated().map { layer, vectors in
            DecoderModel.LayerWeights(
                linears: Array(matrices[layer * groupCount..<(layer + 1) * groupCount]),
                biases: vectors.biases, attentionNorm: vectors.attentionNorm,
                feedForwardNorm: vectors.feedForwardNorm)
        }
        return (layers, matrices[vectors.count * groupCount])
    }
}
