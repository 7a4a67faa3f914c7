import LorryTensor

/// How fast the machine is that a simulation is of.
public struct SimulatedMachine: MachineRates, Sendable, Equatable {
    public var readBytesPerSecond: Double
    private var f32: Double
    private var bf16: Double
    private var int8: Double
    /// Which share of these limits steps reach, as `lorry bench engine` measures it.
    public var prefillShare = 0.6
    public var decodeShare = 0.6
    /// Time of a step beside the model: planning, sampling, sending.
    public var stepSeconds = 0.0003
    /// A load takes `loadSeconds + bytes / loadBytesPerSecond`, reading and compiling together.
    public var loadSeconds = 0.002
    public var loadBytesPerSecond = 500e6
    public var loadThreadCount = 2

    /// - Parameter operationsPerSecond: of every arithmetic.
    public init(readBytesPerSecond: Double, operationsPerSecond: Double) {
        self.readBytesPerSecond = readBytesPerSecond
        f32 = operationsPerSecond
        bf16 = operationsPerSecond
        int8 = operationsPerSecond
    }

    /// Operations per second.
    public subscript(arithmetic: Arithmetic) -> Double {
        get {
            switch arithmetic {
            case .f32: f32
            case .bf16: bf16
            case .int8: int8
            }
        }
        set {
            switch arithmetic {
            case .f32: f32 = newValue
            case .bf16: bf16 = newValue
            case .int8: int8 = newValue
            }
        }
    }

    func loadDuration(byteCount: Int) -> Duration {
        .seconds(loadSeconds + Double(byteCount) / loadBytesPerSecond)
    }
}

extension SimulatedMachine: Decodable {
    private enum CodingKeys: String, CodingKey {
        case limits
        case prefillShare = "prefill_share_of_limit"
        case decodeShare = "decode_share_of_limit"
    }

    /// From the figures of `lorry bench engine --json`.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        let limits = try container.decode(LimitsReport.self, forKey: .limits)
        self.init(
            readBytesPerSecond: limits.readBytesPerSecond,
            operationsPerSecond: limits.f32OperationsPerSecond)
        self[.bf16] = limits.bf16OperationsPerSecond
        self[.int8] = limits.int8OperationsPerSecond
        prefillShare = try container.decode(Double.self, forKey: .prefillShare)
        decodeShare = try container.decode(Double.self, forKey: .decodeShare)
        // The shares are of whole steps.
        stepSeconds = 0
        let rates = [readBytesPerSecond, f32, bf16, int8, prefillShare, decodeShare]
        guard rates.allSatisfy({ $0 > 0 && $0.isFinite }) else {
            throw BenchError("limits and shares must be above 0")
        }
    }
}
