/// The shape of a decoder, read from a Hugging Face `config.json`.
///
/// Every supported architecture is a value of this type: one decoder runs them all, and a further
/// one is a further `Architecture` with its defaults, not another decoder.
public struct ModelConfiguration: Sendable, Equatable {
    public var architecture: Architecture
    public var vocabularySize: Int
    /// Width of the residual stream.
    public var hiddenSize: Int
    /// Inner width of the feed-forward network.
    public var intermediateSize: Int
    public var layerCount: Int
    public var headCount: Int
    /// Heads of keys and values; divides `headCount`.
    public var kvHeadCount: Int
    public var headDim: Int
    public var normEpsilon: Float
    /// Positions that the model was made for.
    public var maximumPositions: Int
    public var rope: RopeConfiguration
    /// Whether the head shares the embedding's weights.
    public var tiesEmbeddings: Bool
    /// Which linear layers have a bias.
    public var biasedSites: Set<LinearSite>
    /// Per layer, how many positions back a token sees (itself included); nil sees all.
    public var slidingWindows: [Int?]
    /// Tokens that end a generation.
    public var endTokenIDs: Set<Int32>
    public var beginTokenID: Int32?

    /// Width of all query heads side by side.
    public var queryWidth: Int { headCount * headDim }
    /// Width of all key (or value) heads side by side.
    public var kvWidth: Int { kvHeadCount * headDim }

    /// Inputs and outputs of one linear layer's weight `[outFeatures, inFeatures]`.
    public func dimensions(of site: LinearSite) -> (outFeatures: Int, inFeatures: Int) {
        switch site {
        case .query: (queryWidth, hiddenSize)
        case .key, .value: (kvWidth, hiddenSize)
        case .output: (hiddenSize, queryWidth)
        case .gate, .up: (intermediateSize, hiddenSize)
        case .down: (hiddenSize, intermediateSize)
        }
    }
}

/// The model families that the decoder runs, named as `model_type` in `config.json`.
public enum Architecture: String, Sendable, CaseIterable {
    case llama
    case mistral
    case qwen2

    /// The class that `architectures` must name.
    var className: String {
        switch self {
        case .llama: "LlamaForCausalLM"
        case .mistral: "MistralForCausalLM"
        case .qwen2: "Qwen2ForCausalLM"
        }
    }
}

/// The linear layers of one decoder layer.
public enum LinearSite: Int, Sendable, CaseIterable, Hashable {
    case query, key, value, output, gate, up, down

    /// The module's last name in checkpoints and adapters.
    public var name: String {
        switch self {
        case .query: "q_proj"
        case .key: "k_proj"
        case .value: "v_proj"
        case .output: "o_proj"
        case .gate: "gate_proj"
        case .up: "up_proj"
        case .down: "down_proj"
        }
    }

    var parentName: String {
        switch self {
        case .query, .key, .value, .output: "self_attn"
        case .gate, .up, .down: "mlp"
        }
    }

    /// The module's path: `model.layers.3.self_attn.q_proj`.
    public func path(layer: Int) -> String { "model.layers.\(layer).\(parentName).\(name)" }

    public var group: LinearGroup {
        switch self {
        case .query, .key, .value: .attentionInput
        case .output: .attentionOutput
        case .gate, .up: .feedForwardInput
        case .down: .feedForwardOutput
        }
    }
}

/// Linear layers that share an input: their weights are packed as one matrix, outputs side by side.
public enum LinearGroup: Int, Sendable, CaseIterable, Hashable {
    case attentionInput, attentionOutput, feedForwardInput, feedForwardOutput

    /// In the order of their outputs.
    public var sites: [LinearSite] {
        switch self {
        case .attentionInput: [.query, .key, .value]
        case .attentionOutput: [.output]
        case .feedForwardInput: [.gate, .up]
        case .feedForwardOutput: [.down]
        }
    }
}

extension ModelConfiguration {
    public func inFeatures(of group: LinearGroup) -> Int {
        dimensions(of: group.sites[0]).inFeatures
    }

    public func outFeatures(of group: LinearGroup) -> Int {
        group.sites.reduce(0) { $0 + dimensions(of: $1).outFeatures }
    }

    /// First output column of a site within its group's packed matrix.
    public func columnStart(of site: LinearSite) -> Int {
        site.group.sites.prefix { $0 != site }.reduce(0) { $0 + dimensions(of: $1).outFeatures }
    }
}
