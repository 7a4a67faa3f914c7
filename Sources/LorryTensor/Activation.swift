import Foundation

/// Functions of single numbers, named as Hugging Face's `ACT2FN` names them.
public enum Activation: Sendable, Equatable {
    case identity
    case relu
    /// `min(max(x, 0), 6)`
    case relu6
    /// `max(x, 0)²`
    case squaredReLU
    /// `x` above 0, else `x / 100`
    case leakyReLU
    case sigmoid
    case tanh
    /// `x σ(x)`
    case silu
    /// `x Φ(x)`
    case gelu
    /// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`
    case tanhGELU
    /// `x σ(1.702 x)`
    case quickGELU
    /// `x tanh(ln(1 + eˣ))`
    case mish

    public func callAsFunction(_ x: Float) -> Float {
        switch self {
        case .identity: x
        case .relu: max(x, 0)
        case .relu6: min(max(x, 0), 6)
        case .squaredReLU: max(x, 0) * max(x, 0)
        case .leakyReLU: x > 0 ? x : 0.01 * x
        case .sigmoid: 1 / (1 + exp(-x))
        case .tanh: Foundation.tanh(x)
        case .silu: x / (1 + exp(-x))
        case .gelu: 0.5 * x * (1 + erf(x * Float(0.5).squareRoot()))
        case .tanhGELU:
            0.5 * x * (1 + Foundation.tanh(0.797_884_56 * (x + 0.044715 * x * x * x)))
        case .quickGELU: x / (1 + exp(-1.702 * x))
        case .mish: x * Foundation.tanh(x > 20 ? x : log1p(exp(x)))
        }
    }
}

/// The inside of a bottleneck: `v ← f(v + bias)` for the rows of a segment.
public struct ActivationSegment {
    let rowCount: Int
    /// Columns of v.
    let rank: Int
    /// Floats from the start of `v` to this segment's `[rowCount, rank]`.
    let vOffset: Int
    /// `[rank]`
    let bias: UnsafePointer<Float>
    let activation: Activation

    public init(
        rowCount: Int, rank: Int, vOffset: Int, bias: UnsafePointer<Float>, activation: Activation
    ) {
        self.rowCount = rowCount
        self.rank = rank
        self.vOffset = vOffset
        self.bias = bias
        self.activation = activation
    }
}

/// `v[row, j] ← f(v[row, j] + bias[j])` for the rows of each segment, changed in place.
public func segmentedActivate(
    _ v: UnsafeMutablePointer<Float>, segments: [ActivationSegment], pool: WorkerPool
) {
    for segment in segments {
        pool.runRanges(count: segment.rowCount, minimum: max(1, 1024 / max(1, segment.rank))) {
            rows in
            for row in rows {
                let values = v + segment.vOffset + row * segment.rank
                for index in 0..<segment.rank {
                    values[index] = segment.activation(values[index] + segment.bias[index])
                }
            }
        }
    }
}
