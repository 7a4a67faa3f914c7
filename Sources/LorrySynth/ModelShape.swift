/// The dimensions of a decoder to be written, as its config.json states them.
public struct ModelShape: Sendable, Equatable {
    public enum Architecture: String, Sendable {
        case llama, qwen2
    }

    /// `rope_scaling` of type `llama3`.
    public struct Llama3Scaling: Sendable, Equatable {
        public var factor: Double
        public var lowFrequencyFactor: Double
        public var highFrequencyFactor: Double
        public var originalMaximumPositions: Int

        public init(
            factor: Double, lowFrequencyFactor: Double = 1, highFrequencyFactor: Double = 4,
            originalMaximumPositions: Int = 8192
        ) {
            self.factor = factor
            self.lowFrequencyFactor = lowFrequencyFactor
            self.highFrequencyFactor = highFrequencyFactor
            self.originalMaximumPositions = originalMaximumPositions
        }
    }

    public var name: String
    public var architecture = Architecture.llama
    public var hiddenSize: Int
    public var layerCount: Int
    public var headCount: Int
    public var kvHeadCount: Int
    public var headDim: Int
    public var intermediateSize: Int
    public var vocabularySize: Int
    public var maximumPositions: Int
    public var ropeTheta: Double
    public var ropeScaling: Llama3Scaling?
    public var normEpsilon = 1e-5
    public var tiesEmbeddings = true

    /// Llama's architecture with tied embeddings; the rest is set afterwards.
    public init(
        name: String, hiddenSize: Int, layerCount: Int, heads: (count: Int, kv: Int, dim: Int),
        intermediateSize: Int, vocabularySize: Int, positions: (maximum: Int, ropeTheta: Double)
    ) {
        self.name = name
        self.hiddenSize = hiddenSize
        self.layerCount = layerCount
        headCount = heads.count
        kvHeadCount = heads.kv
        headDim = heads.dim
        self.intermediateSize = intermediateSize
        self.vocabularySize = vocabularySize
        maximumPositions = positions.maximum
        ropeTheta = positions.ropeTheta
    }

    /// The shapes that `lorry synth model --shape` offers.
    public static let presets: [ModelShape] = [smolLM2, qwen25, llama32, llama31]

    public static func named(_ name: String) throws(SynthError) -> ModelShape {
        guard let shape = presets.first(where: { $0.name == name }) else {
            let known = presets.map(\.name).joined(separator: ", ")
            throw SynthError("unknown shape '\(name)'; known are \(known)")
        }
        return shape
    }

    private static let smolLM2 = ModelShape(
        name: "smollm2-135m", hiddenSize: 576, layerCount: 30, heads: (9, 3, 64),
        intermediateSize: 1536, vocabularySize: 49152, positions: (8192, 100_000))

    private static let qwen25: ModelShape = {
        var shape = ModelShape(
            name: "qwen2.5-0.5b", hiddenSize: 896, layerCount: 24, heads: (14, 2, 64),
            intermediateSize: 4864, vocabularySize: 151_936, positions: (32768, 1_000_000))
        shape.architecture = .qwen2
        shape.normEpsilon = 1e-6
        return shape
    }()

    private static let llama32: ModelShape = {
        var shape = ModelShape(
            name: "llama-3.2-1b", hiddenSize: 2048, layerCount: 16, heads: (32, 8, 64),
            intermediateSize: 8192, vocabularySize: 128_256, positions: (131_072, 500_000))
        shape.ropeScaling = Llama3Scaling(factor: 32)
        return shape
    }()

    private static let llama31: ModelShape = {
        var shape = ModelShape(
            name: "llama-3.1-8b", hiddenSize: 4096, layerCount: 32, heads: (32, 8, 128),
            intermediateSize: 14336, vocabularySize: 128_256, positions: (131_072, 500_000))
        shape.ropeScaling = Llama3Scaling(factor: 8)
        shape.tiesEmbeddings = false
        return shape
    }()
}

/// One of a decoder layer's seven linear layers.
enum LinearLayer: String, CaseIterable {
    case query = "q_proj"
    case key = "k_proj"
    case value = "v_proj"
    case output = "o_proj"
    case gate = "gate_proj"
    case up = "up_proj"
    case down = "down_proj"

    /// The module's path below `model.layers.N.`.
    var path: String {
        switch self {
        case .query, .key, .value, .output: "self_attn.\(rawValue)"
        case .gate, .up, .down: "mlp.\(rawValue)"
        }
    }

    func size(in shape: LayerShape) -> (outFeatures: Int, inFeatures: Int) {
        let queryWidth = shape.headCount * shape.headDim
        let kvWidth = shape.kvHeadCount * shape.headDim
        return switch self {
        case .query: (queryWidth, shape.hiddenSize)
        case .key, .value: (kvWidth, shape.hiddenSize)
        case .output: (shape.hiddenSize, queryWidth)
        case .gate, .up: (shape.intermediateSize, shape.hiddenSize)
        case .down: (shape.hiddenSize, shape.intermediateSize)
        }
    }
}

/// The part of a configuration that decides the sizes of the linear layers.
struct LayerShape {
    var layerCount: Int
    var hiddenSize: Int
    var headCount: Int
    var kvHeadCount: Int
    var headDim: Int
    var intermediateSize: Int
}

extension ModelShape {
    var layers: LayerShape {
        LayerShape(
            layerCount: layerCount, hiddenSize: hiddenSize, headCount: headCount,
            kvHeadCount: kvHeadCount, headDim: headDim, intermediateSize: intermediateSize)
    }
}
