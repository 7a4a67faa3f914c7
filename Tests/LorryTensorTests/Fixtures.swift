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
    /// Of the largest |value| attended to.
    static let attention = 4e-6
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

extension OperandFormat {
    /// `values` as the format holds them, in memory of their own.
    func encode(_ values: [Float]) -> AlignedBuffer<UInt8> {
        let buffer = AlignedBuffer<UInt8>(count: values.count * byteCount)
        values.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            convert(base, .f32, count: values.count, to: self, buffer.pointer)
        }
        return buffer
    }

    /// `values` after a round trip through the format.
    func rounded(_ values: [Float]) -> [Float] {
        let encoded = encode(values)
        return [Float](unsafeUninitializedCapacity: values.count) { out, count in
            if let base = out.baseAddress {
                widen(
                    encoded.pointer, self == .f32 ? .f32 : .bf16, count: values.count, to: base)
            }
            count = values.count
        }
    }
}

/// A matrix packed from f32 values `[outFeatures, inFeatures]`.
func packed(
    _ values: [Float], outFeatures: Int, inFeatures: Int, format: WeightFormat, pool: WorkerPool
) -> PackedMatrix {
    values.withUnsafeBytes { bytes in
        PackedMatrix(
            sources: [MatrixSource(bytes: bytes, elementType: .f32, outFeatures: outFeatures)],
            inFeatures: inFeatures, format: format, pool: pool)
    }
}

func bits(_ values: [Float]) -> [UInt32] { values.map(\.bitPattern) }
