import LorryTensor

/// The nearest `B A` of a rank to a matrix `[outFeatures, inFeatures]`, with the singular values in
/// B, as peft's merges by singular values write it.
struct RankReduction {
    struct Product {
        var rank: Int
        /// `[rank, inFeatures]`
        var down: [Float]
        /// `[outFeatures, rank]`
        var up: [Float]
        var scale: Float
    }

    let outFeatures: Int
    let inFeatures: Int
    let rank: Int
    /// Numbers of A and B are cut off at this quantile of them; nil for none.
    let clamp: Double?

    func factors(
        of matrix: [Float]
    ) throws(DenseAlgebra.Failure) -> (down: [Float], up: [Float]) {
        let parts = try DenseAlgebra.singularParts(matrix, rows: outFeatures, columns: inFeatures)
        return factors(
            left: parts.left, values: parts.values, right: parts.right,
            count: min(outFeatures, inFeatures))
    }

    /// Of a sum of products, whose ranks together are less than the dimensions: by the singular
    /// parts of `R_B R_Aᵀ`, with `B = Q_B R_B` and `Aᵀ = Q_A R_A` of the stacked factors.
    func factors(
        of products: [Product]
    ) throws(DenseAlgebra.Failure) -> (down: [Float], up: [Float]) {
        let inner = products.reduce(0) { $0 + $1.rank }
        var up = [Float](repeating: 0, count: outFeatures * inner)
        var start = 0
        for product in products {
            for row in 0..<outFeatures {
                for column in 0..<product.rank {
                    up[row * inner + start + column] =
                        product.scale * product.up[row * product.rank + column]
                }
            }
            start += product.rank
        }
        let left = try DenseAlgebra.orthogonalParts(up, rows: outFeatures, columns: inner)
        let right = try DenseAlgebra.orthogonalParts(
            transpose(products.flatMap(\.down), rowCount: inner), rows: inFeatures, columns: inner)
        let core = DenseAlgebra.product(
            .init(left.r), .init(right.r, .transposed), m: inner, n: inner, k: inner)
        let parts = try DenseAlgebra.singularParts(core, rows: inner, columns: inner)
        return factors(
            left: DenseAlgebra.product(
                .init(left.q), .init(parts.left), m: outFeatures, n: inner, k: inner),
            values: parts.values,
            right: DenseAlgebra.product(
                .init(parts.right), .init(right.q, .transposed), m: inner, n: inFeatures, k: inner),
            count: inner)
    }

    /// - Parameter count: how many parts there are; zeros stand for those that are missing.
    private func factors(
        left: [Float], values: [Float], right: [Float], count: Int
    ) -> (down: [Float], up: [Float]) {
        let kept = min(rank, count)
        var up = [Float](repeating: 0, count: outFeatures * rank)
        for row in 0..<outFeatures {
            for column in 0..<kept {
                up[row * rank + column] = left[row * count + column] * values[column]
            }
        }
        var down = Array(right[..<(kept * inFeatures)])
        down += [Float](repeating: 0, count: (rank - kept) * inFeatures)
        if let clamp {
            let high = Self.quantile(clamp, of: up + down)
            for index in up.indices { up[index] = min(max(up[index], -high), high) }
            for index in down.indices { down[index] = min(max(down[index], -high), high) }
        }
        return (down, up)
    }

    /// Between two numbers in proportion.
    private static func quantile(_ share: Double, of numbers: [Float]) -> Float {
        let sorted = numbers.sorted()
        let place = share * Double(sorted.count - 1)
        let index = min(Int(place), sorted.count - 1)
        let next = min(index + 1, sorted.count - 1)
        return sorted[index] + Float(place - Double(index)) * (sorted[next] - sorted[index])
    }
}
