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
    ///   - progress: called with the share of work done, from 0 to 1.
    /// - Throws: `ModelError` naming the file, field or tensor at fault.
    public init(
        directory: URL, format: WeightFormat?, contextLength: Int? = nil, pool: WorkerPool,
        progress: (Double) -> Void = { _ in }
    ) throws(ModelError) {
        let configuration = try ModelConfiguration(directory: directory)
        var checkpoint = try Checkpoint(directory: directory)
        let format = format ?? (checkpoint.prevailingElementType == .f32 ? .f32 : .bf16)
        var loader = Loader(configuration: configuration, format: format, pool: pool)
        var layers: [LayerWeights] = []
        for layer in 0..<configuration.layerCount {
            progress(Double(layer) / Double(configuration.layerCount + 1))
            layers.append(try loader.layer(layer, from: &checkpoint))
        }
        let embeddingShape = [configuration.vocabularySize, configuration.hiddenSize]
        let table = try checkpoint.take("model.embed_tokens.weight", shape: embeddingShape)
        if configuration.tiesEmbeddings {
            checkpoint.discard { $0 == "lm_head.weight" }
            head = loader.pack([table], inFeatures: configuration.hiddenSize)
            embedding = .head
        } else {
            let weight = try checkpoint.take("lm_head.weight", shape: embeddingShape)
            head = loader.pack([weight], inFeatures: configuration.hiddenSize)
            embedding = .mapped(table)
        }
        finalNorm = try checkpoint.takeVector("model.norm.weight", count: configuration.hiddenSize)
        // Older checkpoints store the rotary frequencies, which follow from the configuration.
        checkpoint.discard { $0.hasSuffix(".rotary_emb.inv_freq") }
        try checkpoint.requireEmpty()
        let positions = min(contextLength ?? .max, configuration.maximumPositions)
        rotation = RotationTables(
            configuration.rope, headDim: configuration.headDim, positionCount: positions)
        self.configuration = configuration
        self.format = format
        self.layers = layers
        byteCount = loader.byteCount + rotation.byteCount
        progress(1)
    }

    /// Positions that the tables cover: the longest context that can be served.
    public var contextLength: Int { rotation.positionCount }

    /// The bias that the base adds at a site, or nil where it has none. `[outFeatures]`
    func bias(layer: Int, site: LinearSite) -> ArraySlice<Float>? {
        guard configuration.biasedSites.contains(site),
            let bias = layers[layer].biases[site.group.rawValue]
        else { return nil }
        let start = configuration.columnStart(of: site)
        return bias[start..<start + configuration.dimensions(of: site).outFeatures]
    }
}

/// Packs a checkpoint's tensors, layer by layer.
private struct Loader {
    let configuration: ModelConfiguration
    let format: WeightFormat
    let pool: WorkerPool
    var byteCount = 0

    mutating func layer(_ layer: Int, from checkpoint: inout Checkpoint) throws(ModelError)
        -> DecoderModel.LayerWeights
    {
        var linears: [PackedMatrix] = []
        var biases: [[Float]?] = []
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
            linears.append(pack(tensors, inFeatures: configuration.inFeatures(of: group)))
            let hasBias = !configuration.biasedSites.isDisjoint(with: group.sites)
            biases.append(hasBias ? bias : nil)
        }
        let path = "model.layers.\(layer)"
        return DecoderModel.LayerWeights(
            linears: linears,
            biases: biases,
            attentionNorm: try checkpoint.takeVector(
                "\(path).input_layernorm.weight", count: configuration.hiddenSize),
            feedForwardNorm: try checkpoint.takeVector(
                "\(path).post_attention_layernorm.weight", count: configuration.hiddenSize))
    }

    /// Stacks the tensors along their outputs. Their element types were checked when taken.
    mutating func pack(_ tensors: [SafetensorsFile.Tensor], inFeatures: Int) -> PackedMatrix {
        let sources = tensors.compactMap { tensor in
            tensor.elementType.map {
                MatrixSource(
                    bytes: tensor.bytes.bytes, elementType: $0, outFeatures: tensor.shape[0])
            }
        }
        let matrix = PackedMatrix(
            sources: sources, inFeatures: inFeatures, format: format, pool: pool)
        byteCount += matrix.byteCount
        return matrix
    }
}
