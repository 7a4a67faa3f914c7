import LorryTensor

/// Square blocks that rotate groups of inputs, made from skew-symmetric matrices Q.
enum BlockRotations {
    /// `(I - Q)(I + Q)⁻¹`, Cayley's transform, of each block.
    ///
    /// - Parameter blocks: the matrices Q one after the other, `[count, size, size]`.
    static func cayley(_ blocks: [Float], size: Int) throws(AdapterError) -> [Float] {
        let area = size * size
        var result: [Float] = []
        result.reserveCapacity(blocks.count)
        for start in stride(from: 0, to: blocks.count, by: area) {
            var sum = blocks[start..<start + area].map(Double.init)
            var difference = sum.map { -$0 }
            for index in 0..<size {
                sum[index * size + index] += 1
                difference[index * size + index] += 1
            }
            // The factors commute, so that the inverse may stand on either side.
            do throws(DenseAlgebra.Failure) {
                result += try DenseAlgebra.solve(sum, difference, size: size, columns: size)
                    .map { Float($0) }
            } catch {
                throw AdapterError(.invalid, error.description)
            }
        }
        return result
    }

    /// Cayley's transform with a cut Neumann series in the inverse's place:
    /// `I + 2Q + 2Q² + … + 2Qᵗ⁻² + Qᵗ⁻¹`. Of 3 terms it is what it is of 4, as in peft.
    static func cayleyNeumann(_ blocks: [Float], size: Int, termCount: Int) -> [Float] {
        let area = size * size
        var result: [Float] = []
        result.reserveCapacity(blocks.count)
        for start in stride(from: 0, to: blocks.count, by: area) {
            let q = Array(blocks[start..<start + area])
            var sum = [Float](repeating: 0, count: area)
            for index in 0..<size { sum[index * size + index] = 1 }
            if termCount > 1 { add(2, q, to: &sum) }
            if termCount > 2 {
                func next(_ power: [Float]) -> [Float] {
                    DenseAlgebra.product(.init(power), .init(q), m: size, n: size, k: size)
                }
                var power = next(q)
                add(2, power, to: &sum)
                for _ in 0..<max(0, termCount - 4) {
                    power = next(power)
                    add(2, power, to: &sum)
                }
                add(1, next(power), to: &sum)
            }
            result += sum
        }
        return result
    }

    private static func add(_ factor: Float, _ term: [Float], to sum: inout [Float]) {
        for index in sum.indices { sum[index] += factor * term[index] }
    }

    /// The skew-symmetric matrices whose upper triangles are given row by row, without diagonals.
    ///
    /// - Parameter triangles: `[count, size (size - 1) / 2]`
    static func skewSymmetric(triangles: [Float], size: Int) -> [Float] {
        let elementCount = size * (size - 1) / 2
        let count = triangles.count / elementCount
        var blocks = [Float](repeating: 0, count: count * size * size)
        var next = 0
        for block in 0..<count {
            let start = block * size * size
            for row in 0..<size {
                for column in row + 1..<size {
                    blocks[start + row * size + column] = triangles[next]
                    blocks[start + column * size + row] = -triangles[next]
                    next += 1
                }
            }
        }
        return blocks
    }

    /// `(A - Aᵀ) / 2` of each block.
    static func skewSymmetric(of blocks: [Float], size: Int) -> [Float] {
        var result = [Float](repeating: 0, count: blocks.count)
        for start in stride(from: 0, to: blocks.count, by: size * size) {
            for row in 0..<size {
                for column in 0..<size {
                    result[start + row * size + column] =
                        0.5
                        * (blocks[start + row * size + column]
                            - blocks[start + column * size + row])
                }
            }
        }
        return result
    }
}
