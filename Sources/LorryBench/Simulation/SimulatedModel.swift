import LorryModel
import LorryTensor

/// The sizes of a base model and its adapters that decide what steps and loads cost.
public struct SimulatedModel: Sendable, Equatable {
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

    /// Weights of all layers' linear maps.
    public var layerParameterCount: Int
    public var headParameterCount: Int
    public var weightByteCount: Double
    public var weightArithmetic: Arithmetic
    public var operandFormat: OperandFormat
    /// Keys and values of one position, in all layers.
    public var positionByteCount: Int
    /// Products and sums for one row and one position that it sees, in all layers.
    public var pairOperationCount: Int
    /// Of all layers' maps together: what one rank of an adapter on all of them has.
    public var parametersPerRank: Int

    /// - Parameter weights: how the base is held; adapters, keys and values follow it.
    public init(_ dimensions: Dimensions, weights: WeightFormat) {
        let linears = dimensions.linears
        let layers = dimensions.layerCount
        layerParameterCount = layers * linears.reduce(0) { $0 + $1.in * $1.out }
        headParameterCount = dimensions.hiddenSize * dimensions.vocabularySize
        weightByteCount =
            Double(layerParameterCount + headParameterCount) * Self.byteCount(weights)
        weightArithmetic = weights.arithmetic
        operandFormat = weights.operandFormat
        positionByteCount =
            2 * layers * dimensions.kvHeadCount * dimensions.headDim * operandFormat.byteCount
        pairOperationCount = 4 * layers * dimensions.headCount * dimensions.headDim
        parametersPerRank = layers * linears.reduce(0) { $0 + $1.in + $1.out }
    }

    private static func byteCount(_ format: WeightFormat) -> Double {
        switch format {
        case .f32: 4
        case .bf16: 2
        // And a scale of two bytes for 32 weights.
        case .int8: 1 + 2.0 / 32
        case .int4: 0.5 + 2.0 / 32
        }
    }

    /// Bytes of an adapter of this rank on all linear maps.
    public func adapterByteCount(rank: Int) -> Int {
        rank * parametersPerRank * operandFormat.byteCount
    }
}

/// How fast the machine is that a simulation is of.
public struct SimulatedMachine: Sendable, Equatable {
    /// Reading memory that is in no cache.
    public var readBytesPerSecond: Double
    /// The peak of the arithmetic that multiplies the base's weights, and of that which multiplies
    /// adapters, keys and values.
    public var weightOperationsPerSecond: Double
    public var operandOperationsPerSecond: Double
    /// Which share of these limits steps reach, as `lorry bench engine` measures it.
    public var prefillShare = 0.6
    public var decodeShare = 0.6
    /// Time of a step beside the model: planning, sampling, sending.
    public var stepSeconds = 0.0003
    /// A load takes `loadSeconds + bytes / loadBytesPerSecond`, reading and compiling together.
    public var loadSeconds = 0.002
    public var loadBytesPerSecond = 500e6
    public var loadThreadCount = 2

    public init(
        readBytesPerSecond: Double, weightOperationsPerSecond: Double,
        operandOperationsPerSecond: Double
    ) {
        self.readBytesPerSecond = readBytesPerSecond
        self.weightOperationsPerSecond = weightOperationsPerSecond
        self.operandOperationsPerSecond = operandOperationsPerSecond
    }

    func loadDuration(byteCount: Int) -> Duration {
        .seconds(loadSeconds + Double(byteCount) / loadBytesPerSecond)
    }
}

/// The figures of `lorry bench engine --json` that a simulation needs.
public struct EngineCalibration: Decodable, Sendable {
    struct Limits: Decodable {
        var readBytesPerSecond: Double
        var int8: Double
        var bf16: Double
        var f32: Double

        enum CodingKeys: String, CodingKey {
            case readBytesPerSecond = "read_bytes_per_second"
            case int8 = "int8_operations_per_second"
            case bf16 = "bf16_operations_per_second"
            case f32 = "f32_operations_per_second"
        }
    }

    let limits: Limits
    let prefillShare: Double
    let decodeShare: Double

    enum CodingKeys: String, CodingKey {
        case limits
        case prefillShare = "prefill_share_of_limit"
        case decodeShare = "decode_share_of_limit"
    }

    private func peak(_ arithmetic: Arithmetic) -> Double {
        switch arithmetic {
        case .f32: limits.f32
        case .bf16: limits.bf16
        case .int8: limits.int8
        }
    }

    public func machine(for model: SimulatedModel) -> SimulatedMachine {
        var machine = SimulatedMachine(
            readBytesPerSecond: limits.readBytesPerSecond,
            weightOperationsPerSecond: peak(model.weightArithmetic),
            operandOperationsPerSecond: peak(model.operandFormat.arithmetic))
        machine.prefillShare = prefillShare
        machine.decodeShare = decodeShare
        // The shares are of whole steps.
        machine.stepSeconds = 0
        return machine
    }
}
