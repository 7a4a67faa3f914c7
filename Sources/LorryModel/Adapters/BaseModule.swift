/// A module of the base model that adapters may name.
public enum BaseModule: Hashable, Sendable {
    case linear(layer: Int, LinearSite)
    /// `lm_head`, a linear layer from the residual stream to the vocabulary.
    case head
    case embedding
    case norm(NormSite)

    /// The norms of a decoder.
    public enum NormSite: Hashable, Sendable {
        case attention(layer: Int)
        case feedForward(layer: Int)
        case final
    }

    /// The module's path: `model.layers.3.self_attn.q_proj`.
    public var path: String {
        switch self {
        case .linear(let layer, let site): site.path(layer: layer)
        case .head: "lm_head"
        case .embedding: "model.embed_tokens"
        case .norm(.attention(let layer)): "model.layers.\(layer).input_layernorm"
        case .norm(.feedForward(let layer)): "model.layers.\(layer).post_attention_layernorm"
        case .norm(.final): "model.norm"
        }
    }

    /// The last part of the path.
    public var name: String {
        let path = path
        guard let dot = path.lastIndex(of: ".") else { return path }
        return String(path[path.index(after: dot)...])
    }

    /// Where the module comes in the order in which the model runs.
    var order: Int {
        let siteCount = LinearSite.allCases.count + 2
        return switch self {
        case .embedding: 0
        case .norm(.attention(let layer)): 1 + layer * siteCount
        case .linear(let layer, let site):
            // After the norm that feeds it.
            1 + layer * siteCount + 1 + site.rawValue
                + (site.rawValue >= LinearSite.gate.rawValue ? 1 : 0)
        case .norm(.feedForward(let layer)):
            1 + layer * siteCount + 1 + LinearSite.gate.rawValue
        case .norm(.final): Int.max - 1
        case .head: Int.max
        }
    }
}

extension ModelConfiguration {
    /// All modules, in the order in which the model runs.
    var modules: [BaseModule] {
        let layers = (0..<layerCount).flatMap { layer in
            LinearSite.allCases.map { BaseModule.linear(layer: layer, $0) } + [
                .norm(.attention(layer: layer)), .norm(.feedForward(layer: layer)),
            ]
        }
        return ([.embedding, .norm(.final), .head] + layers).sorted { $0.order < $1.order }
    }

    /// The modules that compute `y = W x + b`, the head last.
    var linearModules: [BaseModule] { modules.filter(\.isLinear) }

    /// Inputs and outputs of a linear layer's or the head's weight `[outFeatures, inFeatures]`; of
    /// the embedding `[hiddenSize, vocabularySize]`, as if it were the linear map of a token's
    /// one-hot vector.
    func dimensions(of module: BaseModule) -> (outFeatures: Int, inFeatures: Int) {
        switch module {
        case .linear(_, let site): dimensions(of: site)
        case .head: (vocabularySize, hiddenSize)
        case .embedding: (hiddenSize, vocabularySize)
        case .norm: (hiddenSize, hiddenSize)
        }
    }

    /// Whether the base adds a bias to the module's output.
    func hasBias(_ module: BaseModule) -> Bool {
        if case .linear(_, let site) = module { biasedSites.contains(site) } else { false }
    }

    /// Whether keys and values of the last layer, and so of all layers, are the base's although the
    /// module is changed.
    func isBehindKeysAndValues(_ module: BaseModule) -> Bool {
        let last = layerCount - 1
        return switch module {
        case .embedding: false
        case .linear(let layer, let site): layer == last && site != .key && site != .value
        case .norm(.attention): false
        case .norm(.feedForward(let layer)): layer == last
        case .norm(.final), .head: true
        }
    }
}

extension BaseModule {
    var isLinear: Bool {
        switch self {
        case .linear, .head: true
        case .embedding, .norm: false
        }
    }
}
