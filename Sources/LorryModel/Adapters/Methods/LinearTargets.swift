import LorryTensor

extension AdapterTensors {
    /// The targets of a method that works on linear layers only; the head is one.
    ///
    /// - Throws: `AdapterError` as `targets(having:)`, and where the embedding is among them.
    func linearTargets(having name: String) throws(AdapterError) -> [BaseModule] {
        try linearTargets(havingAnyOf: [name])
    }

    func linearTargets(havingAnyOf names: [String]) throws(AdapterError) -> [BaseModule] {
        let targets = try targets(havingAnyOf: names)
        for target in targets where !target.isLinear {
            throw source.unsupported(
                "target_modules", "'\(target.path)' is not supported as a target of this method")
        }
        return targets
    }

    /// Checks the rank of a module's tensors.
    func checkRank(
        _ rank: Int, _ tensor: SafetensorsFile.Tensor, expected: [Int]
    ) throws(AdapterError) {
        guard !expected.contains(rank) else { return }
        let wanted = expected.map(String.init).joined(separator: " or ")
        throw source.badTensor(
            tensor.name, "has rank \(rank), \(AdapterSource.configurationFile) says \(wanted)")
    }
}

extension AdapterSource {
    /// A rank, within what load-time work and memory allow.
    func rank(_ field: String, default other: Int) throws(AdapterError) -> Int {
        let rank = try integer(field) ?? other
        guard rank <= 4096 else {
            throw unsupported(field, "\(rank) is above 4096, the largest that is served")
        }
        return rank
    }
}

extension AdapterProgramBuilder {
    /// Adds `y ← y + scale · up (down x)` in its cheaper form: two factors, or one matrix where
    /// the rank is so large that the factors have as many numbers.
    ///
    /// - Parameters:
    ///   - down: `[rank, inFeatures]`, row-major.
    ///   - up: `[outFeatures, rank]`, row-major.
    mutating func addProduct(
        at module: BaseModule, rank: Int, down: Operand, up: Operand, scale: Float = 1
    ) {
        let (outFeatures, inFeatures) = dimensions(of: module)
        guard rank * (outFeatures + inFeatures) >= outFeatures * inFeatures else {
            return addLowRank(at: module, rank: rank, down: down, up: up, scale: scale)
        }
        noteComputation(of: down.count + up.count)
        addDense(
            at: module,
            matrix: .derived(count: outFeatures * inFeatures) { reader throws(AdapterError) in
                DenseAlgebra.product(
                    .init(try reader.floats(up)), .init(try reader.floats(down)),
                    m: outFeatures, n: inFeatures, k: rank)
            }, scale: scale)
    }
}

extension Operand {
    /// `diag(vector) · M` of a row-major `[rows, columns]`.
    static func scalingRows(
        _ matrix: Operand, columns: Int, by vector: Operand
    ) -> Operand {
        .derived(count: matrix.count) { reader throws(AdapterError) in
            var floats = try reader.floats(matrix)
            let factors = try reader.floats(vector)
            floats.withUnsafeMutableBufferPointer { floats in
                for (row, factor) in factors.enumerated() {
                    for index in row * columns..<(row + 1) * columns { floats[index] *= factor }
                }
            }
            return floats
        }
    }

    /// The first rows and columns of a row-major matrix of `width` columns.
    static func corner(
        of matrix: Operand, width: Int, rows: Int, columns: Int
    ) -> Operand {
        guard matrix.count != rows * columns else { return matrix }
        return .derived(count: rows * columns) { reader throws(AdapterError) in
            let floats = try reader.floats(matrix)
            var corner: [Float] = []
            corner.reserveCapacity(rows * columns)
            for row in 0..<rows { corner += floats[row * width..<row * width + columns] }
            return corner
        }
    }
}
