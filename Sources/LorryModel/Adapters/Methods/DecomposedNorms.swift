import Foundation
import LorryTensor

/// The norms of the rows of `W + s · B A`, without forming the sum:
/// `n² = ‖W_k‖² + 2 s · B_k · (W Aᵀ)_k + s² · B_k (A Aᵀ) B_kᵀ`.
struct DecomposedNorms {
    /// `[outFeatures]`
    let norms: [Float]

    /// - Parameters:
    ///   - weight: `[outFeatures, inFeatures]`, or its transpose.
    ///   - down: A, `[rank, inFeatures]`.
    ///   - up: B, `[outFeatures, rank]`.
    init(
        weight: [Float], isTransposed: Bool, down: [Float], up: [Float], rank: Int,
        outFeatures: Int, inFeatures: Int, scale: Float
    ) {
        let products = DenseAlgebra.product(
            .init(weight, isTransposed ? .transposed : .plain), .init(down, .transposed),
            m: outFeatures, n: rank, k: inFeatures)
        let gram = DenseAlgebra.product(
            .init(down), .init(down, .transposed), m: rank, n: rank, k: inFeatures)
        let squares = Self.squares(
            weight, isTransposed: isTransposed, outFeatures: outFeatures, inFeatures: inFeatures)
        let scale = Double(scale)
        norms = (0..<outFeatures).map { row in
            var sum = squares[row]
            for j in 0..<rank {
                let b = Double(up[row * rank + j])
                sum += 2 * scale * b * Double(products[row * rank + j])
                var mixed = 0.0
                for k in 0..<rank {
                    mixed += Double(gram[j * rank + k]) * Double(up[row * rank + k])
                }
                sum += scale * scale * b * mixed
            }
            return Float(max(sum, 0).squareRoot())
        }
    }

    /// `m / n`
    func ratios(of magnitudes: [Float]) -> [Float] { zip(magnitudes, norms).map { $0 / $1 } }

    private static func squares(
        _ weight: [Float], isTransposed: Bool, outFeatures: Int, inFeatures: Int
    ) -> [Double] {
        var squares = [Double](repeating: 0, count: outFeatures)
        weight.withUnsafeBufferPointer { weight in
            guard isTransposed else {
                for row in 0..<outFeatures {
                    var sum = 0.0
                    for value in weight[row * inFeatures..<(row + 1) * inFeatures] {
                        sum += Double(value) * Double(value)
                    }
                    squares[row] = sum
                }
                return
            }
            for column in 0..<inFeatures {
                for row in 0..<outFeatures {
                    let value = Double(weight[column * outFeatures + row])
                    squares[row] += value * value
                }
            }
        }
        return squares
    }
}
