import LorryModel
import LorryTensor

/// The sizes of a base model and its adapters that decide what steps and loads cost.
public struct SimulatedModel: Sendable {
    /// A decoder of Llama's architecture, as its config.json states it.
    public struct Dimensions: Sendable, Equatable {
        public var layerCount: Int
        public var hiddenSize: Int
        public var headCount: Int
        public var kvHeadCount: Int
        public var headDim: Int
        public var intermediateSize: Int
        public var vocabularySize: Int

        public init(
            layerCount: Int, hiddenSize: Int, headCount: Int, kvHeadCount: Int, headDim: Int,
            intermediateSize: Int, vocabularySize: Int
        ) {
            self.layerCount = layerCount
            self.hiddenSize = hiddenSize
            self.headCount = headCount
            self.kvHeadCount = kvHeadCount
            self.headDim = headDim
            self.intermediateSize = intermediateSize
            self.vocabularySize = vocabularySize
        }

        /// The first of the linear maps: those of queries, keys and values.
        fileprivate static let inputLinearCount = 3

        /// Inputs and outputs of a layer's seven linear maps.
        fileprivate var linears: [(in: Int, out: Int)] {
            let (query, kv) = (headCount * headDim, kvHeadCount * headDim)
            return [
                (hiddenSize, query), (hiddenSize, kv), (hiddenSize, kv), (query, hiddenSize),
                (hiddenSize, intermediateSize), (hiddenSize, intermediateSize),
                (intermediateSize, hiddenSize),
            ]
        }
    }

    public let cost: StepWork
    /// How adapters, keys and values are held.
    public let operandFormat: OperandFormat
    /// Of all layers' maps together: what one rank of an adapter on all of them has.
    public let parametersPerRank: Int

    /// - Parameter weights: how the base is held; adapters, keys and values follow it.
    public init(_ dimensions: Dimensions, weights: WeightFormat) {
        let linears = dimensions.linears
        let layers = dimensions.layerCount
        let parameterCounts = linears.map { $0.in * $0.out }
        let layerCount = layers * parameterCounts.reduce(0, +)
        let headCount = dimensions.hiddenSize * dimensions.vocabularySize
        let tailCount = parameterCounts.dropFirst(Dimensions.inputLinearCount).reduce(0, +)
        operandFormat = weights.operandFormat
        cost = StepWork(
            layerByteCount: Self.byteCount(layerCount, weights),
            headByteCount: Self.byteCount(headCount, weights),
            tailByteCount: Self.byteCount(tailCount, weights),
            layerParameterCount: layerCount, headParameterCount: headCount,
            tailParameterCount: tailCount, weightArithmetic: weights.arithmetic,
            adapterArithmetic: operandFormat.arithmetic,
            attentionArithmetic: operandFormat.arithmetic,
            positionByteCount: 2 * dimensions.kvHeadCount
                * (dimensions.headDim * operandFormat.byteCount + operandFormat.scaleByteCount),
            queryWidth: dimensions.headCount * dimensions.headDim,
            windows: Array(repeating: nil, count: layers))
        parametersPerRank = layers * linears.reduce(0) { $0 + $1.in + $1.out }
    }

    private static func byteCount(_ parameterCount: Int, _ format: WeightFormat) -> Int {
        let each: Double =
            switch format {
            case .f32: 4
            case .bf16: 2
            // And a scale of two bytes for 32 weights.
            case .int8: 1 + 2.0 / 32
            case .int4: 0.5 + 2.0 / 32
            }
        return Int(Double(parameterCount) * each)
    }

    /// Keys and values of one position, in all layers.
    public var positionByteCount: Int { cost.positionByteCount * cost.windows.count }

    /// Bytes of an adapter of this rank on all linear maps.
    public func adapterByteCount(rank: Int) -> Int {
        rank * parametersPerRank * operandFormat.byteCount
    }
}
