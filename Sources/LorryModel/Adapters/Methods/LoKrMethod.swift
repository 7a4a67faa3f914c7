import LorryTensor

/// LoKr (arXiv 2212.10650): `y = W x + b + alpha / r · (w1 ⊗ w2) x`.
///
/// Both factors may be products of rank r; the scale is `alpha / r` also where none is. Tensors, as
/// peft 0.21 saves them, with `outFeatures = a · d` and `inFeatures = c · e`:
///
///     base_model.model.<module>.lokr_w1    [a, c]    or lokr_w1_a [a, r], lokr_w1_b [r, c]
///     base_model.model.<module>.lokr_w2    [d, e]    or lokr_w2_a [d, r], lokr_w2_b [r, e]
struct LoKrMethod: PEFTMethod {
    let peftTypes = ["LOKR"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        // The shapes say how the features are divided and which factors are products.
        try source.refuseUnknownFields(
            known: LycorisScaling.knownFields.union([
                "decompose_both", "decompose_factor", "rank_dropout_scale",
            ]))
        let scaling = try LycorisScaling(source)
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        for module in try tensors.linearTargets(havingAnyOf: ["lokr_w1", "lokr_w1_a"]) {
            try add(module, scaling, &tensors, &builder)
        }
        try tensors.requireEmpty()
        return "lokr"
    }

    private struct Factor {
        var rows: Int
        var columns: Int
        var operand: Operand
    }

    private func add(
        _ module: BaseModule, _ scaling: LycorisScaling, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let source = tensors.source
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let ranks = try scaling.ranks(module)
        var rank = ranks[0]
        let left = try Self.factor(module, "lokr_w1", ranks, &rank, &tensors)
        let right = try Self.factor(module, "lokr_w2", ranks, &rank, &tensors)
        guard left.rows * right.rows == outFeatures, left.columns * right.columns == inFeatures
        else {
            throw source.badTensor(
                "\(AdapterTensors.prefix)\(module.path).lokr_w1",
                "and lokr_w2 are [\(left.rows), \(left.columns)] and [\(right.rows), "
                    + "\(right.columns)], which do not make [\(outFeatures), \(inFeatures)]")
        }
        let scale = try scaling.scale(module, rank: rank)
        let shape = KroneckerShape(
            leftOut: left.rows, leftIn: left.columns, rightOut: right.rows,
            rightIn: right.columns)
        guard case .linear = module else {
            return builder.addDense(
                at: module, matrix: Self.product(left.operand, right.operand, shape), scale: scale)
        }
        builder.addKronecker(
            at: module, shape: shape, left: left.operand, right: right.operand, scale: scale)
    }

    /// A factor, whole or as a product.
    ///
    /// - Parameter rank: becomes the product's.
    private static func factor(
        _ module: BaseModule, _ name: String, _ ranks: [Int], _ rank: inout Int,
        _ tensors: inout AdapterTensors
    ) throws(AdapterError) -> Factor {
        if let whole = tensors.take(module, name) {
            try tensors.check(whole, shape: [nil, nil])
            return Factor(rows: whole.shape[0], columns: whole.shape[1], operand: .tensor(whole))
        }
        let up = try tensors.require(module, "\(name)_a", shape: [nil, nil])
        try tensors.checkRank(up.shape[1], up, expected: ranks)
        rank = up.shape[1]
        let down = try tensors.require(module, "\(name)_b", shape: [rank, nil])
        let (rows, columns, inner) = (up.shape[0], down.shape[1], rank)
        let (upPlace, downPlace) = (TensorPlace(up), TensorPlace(down))
        return Factor(
            rows: rows, columns: columns,
            operand: .derived(count: rows * columns) { reader in
                DenseAlgebra.product(
                    .init(reader.floats(upPlace)), .init(reader.floats(downPlace)), m: rows,
                    n: columns, k: inner)
            })
    }

    /// The Kronecker product, `[leftOut · rightOut, leftIn · rightIn]`.
    private static func product(
        _ left: Operand, _ right: Operand, _ shape: KroneckerShape
    ) -> Operand {
        .derived(count: left.count * right.count) { reader throws(AdapterError) in
            let (left, right) = (try reader.floats(left), try reader.floats(right))
            var product: [Float] = []
            product.reserveCapacity(left.count * right.count)
            for a in 0..<shape.leftOut {
                for d in 0..<shape.rightOut {
                    let row = right[d * shape.rightIn..<(d + 1) * shape.rightIn]
                    for c in 0..<shape.leftIn {
                        let factor = left[a * shape.leftIn + c]
                        for value in row { product.append(factor * value) }
                    }
                }
            }
            return product
        }
    }
}
