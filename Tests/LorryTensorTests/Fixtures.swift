import LorryTensor

/// SplitMix64: the same numbers for the same seed, everywhere.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func floats(_ count: Int, in range: ClosedRange<Float> = -1...1) -> [Float] {
        (0..<count).map { _ in Float.random(in: range, using: &self) }
    }
}

/// How far a kernel may be from a double-precision reference, as a share of the magnitude that
/// passed through it. The one table for all levels.
enum Tolerance {
    /// Of Σ |x · w|, for up to 1,000 terms.
    static let matmul = 1e-6
    static let shrink = 1e-6
    static let expand = 1e-6
    /// Of Σ max |x| · |w|, where int8 meets activations of 15 bits and a sign.
    static let words = 1.7e-5
    /// Of the largest |value| attended to.
    static let attention = 4e-6
    /// Likewise where weights are rounded to bf16, which leaves 8 bits of each.
    static let bf16Weights = 2e-3
    /// Likewise where queries and weights are rounded to 15 bits and a sign.
    static let wordWeights = 3e-4
    /// Of the result.
    static let exponential = 2.5e-7
    static let rmsNorm = 1e-6
    static let silu = 1e-6
    /// Of |a| + |b|, the rotated pair.
    static let rope = 2e-7
    /// Absolute, for log Σ exp.
    static let logSumExp = 2e-6
}

/// What this machine can run.
enum Machine {
    static let levels = KernelLevel.supported
    /// The levels with fused multiply-add, which give the same bits.
    static let fusedLevels = levels.filter { $0 >= .avx2 }

    /// A fresh pool: tests run in parallel, and a pool runs one thing at a time.
    static func pool(_ level: KernelLevel, threads: Int = 1) -> WorkerPool {
        WorkerPool(threadCount: threads, level: level)
    }
}

/// `values` after a round trip through bf16.
func roundedToBF16(_ values: [Float]) -> [Float] {
    var narrow = [UInt16](repeating: 0, count: values.count)
    LorryTensor.narrow(values, .f32, count: values.count, to: &narrow)
    return narrow.map { Float(bitPattern: UInt32($0) << 16) }
}

extension OperandFormat {
    /// `values` as files of f32 or bf16 hold them, in memory of their own.
    func encode(_ values: [Float]) -> AlignedBuffer<UInt8> {
        let buffer = AlignedBuffer<UInt8>(count: values.count * byteCount)
        let target = UnsafeMutableRawPointer(buffer.pointer)
        if self == .bf16 {
            narrow(
                values, .f32, count: values.count,
                to: target.assumingMemoryBound(to: UInt16.self))
        } else {
            precondition(self == .f32, "int8 has scales beside it")
            values.withUnsafeBytes { bytes in
                if let base = bytes.baseAddress {
                    target.copyMemory(from: base, byteCount: bytes.count)
                }
            }
        }
        return buffer
    }

    /// `values` as the format holds them. For int8 they are one group that shares a scale.
    func rounded(_ values: [Float]) -> [Float] {
        switch self {
        case .f32: return values
        case .bf16: return roundedToBF16(values)
        case .int8:
            let largest = values.reduce(0) { max($0, abs($1)) }
            guard largest > 0 else { return values }
            return values.map { ($0 * (127 / largest)).rounded(.toNearestOrEven) * (largest / 127) }
        }
    }

    /// What the kernels of a level make of activations that meet operands of this format.
    func seen(_ values: [Float], at level: KernelLevel) -> [Float] {
        self == .bf16 && level == .avx512BF16 ? roundedToBF16(values) : values
    }
}

/// `matrix` of rows of `width`, with `body` applied to each row.
func mapRows(_ matrix: [Float], width: Int, _ body: ([Float]) -> [Float]) -> [Float] {
    stride(from: 0, to: matrix.count, by: width).flatMap { body(Array(matrix[$0..<$0 + width])) }
}

func transposed(_ matrix: [Float], width: Int) -> [Float] {
    let height = matrix.count / width
    return (0..<matrix.count).map { matrix[$0 % height * width + $0 / height] }
}

/// A matrix packed from f32 values `[outFeatures, inFeatures]`.
func packed(
    _ values: [Float], outFeatures: Int, inFeatures: Int, format: WeightFormat, pool: WorkerPool
) throws -> PackedMatrix {
    try values.withUnsafeBytes { bytes in
        try PackedMatrix(
            sources: [MatrixSource(bytes: bytes, elementType: .f32, outFeatures: outFeatures)],
            inFeatures: inFeatures, format: format, pool: pool)
    }
}

func bits(_ values: [Float]) -> [UInt32] { values.map(\.bitPattern) }
