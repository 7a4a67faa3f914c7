import LorryTensor

// What is sparse or structured at the decoder's layers is one matrix at the head or the embedding.
extension AdapterProgramBuilder {
    /// `y ← y + D x` at the head, the D of single places laid out whole.
    mutating func addDense(
        at module: BaseModule,
        entries: @escaping @Sendable (OperandReader) throws(AdapterError) -> [SparseEntry]
    ) {
        let (outFeatures, inFeatures) = dimensions(of: module)
        addDense(
            at: module,
            matrix: .derived(count: outFeatures * inFeatures) { reader throws(AdapterError) in
                var matrix = [Float](repeating: 0, count: outFeatures * inFeatures)
                for entry in try entries(reader) {
                    try entry.check(outFeatures: outFeatures, inFeatures: inFeatures)
                    matrix[entry.row * inFeatures + entry.column] += entry.value
                }
                return matrix
            })
    }

    /// `y ← W T x` at the head, with a T of steps: adds `W T - W`.
    mutating func transformHeadInput(_ steps: [InputStep]) {
        let (outFeatures, inFeatures) = dimensions(of: .head)
        let weight = weight(of: .head)
        addDense(
            at: .head,
            matrix: .derived(count: outFeatures * inFeatures) { reader throws(AdapterError) in
                let before = try reader.floats(weight)
                var after = before
                // The last step is next to W.
                for step in steps.reversed() {
                    after = try step.applied(
                        toRows: after, count: outFeatures, width: inFeatures, isBehind: false,
                        reader)
                }
                for index in after.indices { after[index] -= before[index] }
                return after
            })
    }

    /// `e ← T e` of all embeddings, as a table of the adapter's own.
    mutating func transformEmbedding(_ steps: [InputStep]) {
        let (width, tokenCount) = dimensions(of: .embedding)
        let table = weight(of: .embedding)
        replaceTable(
            .embedding,
            rows: .derived(count: tokenCount * width) { reader throws(AdapterError) in
                var rows = try reader.floats(table)
                for step in steps {
                    rows = try step.applied(
                        toRows: rows, count: tokenCount, width: width, isBehind: true, reader)
                }
                return rows
            })
    }
}

extension AdapterProgramBuilder.InputStep {
    /// `M T` of a row-major `[count, width]` and the step's matrix T, or `M Tᵀ`: T of each row.
    ///
    /// - Parameter isBehind: whether rows are what the step gets, rather than what reads its result.
    fileprivate func applied(
        toRows matrix: [Float], count: Int, width: Int, isBehind: Bool, _ reader: OperandReader
    ) throws(AdapterError) -> [Float] {
        switch self {
        case .scale(let operand):
            let factors = try reader.floats(operand)
            return matrix.indices.map { matrix[$0] * factors[$0 % width] }
        case .gather(let indices):
            var result = [Float](repeating: 0, count: matrix.count)
            for row in 0..<count {
                for (column, index) in indices.enumerated() {
                    let (from, to) = isBehind ? (Int(index), column) : (column, Int(index))
                    result[row * width + to] += matrix[row * width + from]
                }
            }
            return result
        case .blocks(let operand, let size, let blockCount, let isShared):
            let blocks = try reader.floats(operand)
            var result = [Float](repeating: 0, count: matrix.count)
            for block in 0..<blockCount {
                let start = isShared ? 0 : block * size * size
                var part: [Float] = []
                part.reserveCapacity(count * size)
                for row in 0..<count {
                    part += matrix[row * width + block * size..<row * width + (block + 1) * size]
                }
                // An input x becomes x R, so what reads it, M, becomes M Rᵀ.
                let rotation = Array(blocks[start..<start + size * size])
                let product = DenseAlgebra.product(
                    .init(part), .init(rotation, isBehind ? .plain : .transposed), m: count,
                    n: size, k: size)
                for row in 0..<count {
                    for column in 0..<size {
                        result[row * width + block * size + column] = product[row * size + column]
                    }
                }
            }
            return result
        }
    }
}
