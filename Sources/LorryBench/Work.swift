import LorryTensor

/// What a computation must do at least: bytes that it has to read, and operations by kind.
public struct Work: Sendable, Equatable {
    public var byteCount: Double
    /// A product counts as two: the multiplication and the addition.
    public var operationCounts: [Arithmetic: Double]

    public init(byteCount: Double = 0, operationCounts: [Arithmetic: Double] = [:]) {
        self.byteCount = byteCount
        self.operationCounts = operationCounts
    }

    public var operationCount: Double { operationCounts.values.reduce(0, +) }

    public mutating func add(_ count: Double, _ arithmetic: Arithmetic) {
        operationCounts[arithmetic, default: 0] += count
    }

    /// The time below which no program does it on a machine: that of reading or that of computing,
    /// whichever is longer, since they go on beside each other.
    public func limitSeconds(_ limits: some MachineRates) -> Double {
        max(byteCount / limits.readBytesPerSecond, computingSeconds(limits))
    }

    /// Kinds of arithmetic take turns on the same units.
    public func computingSeconds(_ limits: some MachineRates) -> Double {
        operationCounts.reduce(0) { $0 + $1.value / limits[$1.key] }
    }
}

/// What a machine can do at most, measured or assumed.
public protocol MachineRates {
    /// Reading memory that is in no cache.
    var readBytesPerSecond: Double { get }
    /// Operations per second; a product counts as two.
    subscript(arithmetic: Arithmetic) -> Double { get }
}

extension MachineLimits: MachineRates {
    public subscript(arithmetic: Arithmetic) -> Double { peak(arithmetic).operationsPerSecond }
}

extension WeightFormat {
    /// The arithmetic whose peak bounds a matmul with such weights: packed integers of any width
    /// are multiplied as bytes.
    public var arithmetic: Arithmetic { Arithmetic(rawValue: rawValue) ?? .int8 }
}

extension OperandFormat {
    /// The arithmetic whose peak bounds adapters and attention. They meet single-precision
    /// activations, so that bytes are widened: products of bf16 pairs are the best there is.
    public var arithmetic: Arithmetic { self == .f32 ? .f32 : .bf16 }

    /// Bytes of the scale that a head's keys or values of one position have.
    var scaleByteCount: Int { self == .int8 ? 4 : 0 }
}
