import LorryTensor

/// LoHa (FedPara, arXiv 2108.06098): `y = W x + b + alpha / r · (w1a w1b ⊙ w2a w2b) x`.
///
/// The elementwise product of two matrices of rank r has rank r² at most: its factors are the
/// products of all pairs of columns and of rows. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.hada_w1_a  [outFeatures, r]    (hada_w2_a likewise)
///     base_model.model.<module>.hada_w1_b  [r, inFeatures]     (hada_w2_b likewise)
struct LoHaMethod: PEFTMethod {
    let peftTypes = ["LOHA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: LycorisScaling.knownFields)
        let scaling = try LycorisScaling(source)
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        for module in try tensors.linearTargets(having: "hada_w1_a") {
            try add(module, scaling, &tensors, &builder)
        }
        try tensors.requireEmpty()
        return "loha"
    }

    private func add(
        _ module: BaseModule, _ scaling: LycorisScaling, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let up = try tensors.require(module, "hada_w1_a", shape: [outFeatures, nil])
        let rank = up.shape[1]
        try tensors.checkRank(rank, up, expected: try scaling.ranks(module))
        let (up1, down1, up2, down2) = (
            TensorPlace(up),
            TensorPlace(try tensors.require(module, "hada_w1_b", shape: [rank, inFeatures])),
            TensorPlace(try tensors.require(module, "hada_w2_a", shape: [outFeatures, rank])),
            TensorPlace(try tensors.require(module, "hada_w2_b", shape: [rank, inFeatures]))
        )
        let scale = try scaling.scale(module, rank: rank)
        let pairs = rank * rank
        if pairs * (outFeatures + inFeatures) < outFeatures * inFeatures {
            return builder.addLowRank(
                at: module, rank: pairs,
                down: .derived(count: pairs * inFeatures) { reader in
                    Self.rowPairs(reader.floats(down1), reader.floats(down2), rank: rank)
                },
                up: .derived(count: outFeatures * pairs) { reader in
                    Self.columnPairs(reader.floats(up1), reader.floats(up2), rank: rank)
                }, scale: scale)
        }
        builder.addDense(
            at: module,
            matrix: .derived(count: outFeatures * inFeatures) { reader in
                var product = DenseAlgebra.product(
                    .init(reader.floats(up1)), .init(reader.floats(down1)), m: outFeatures,
                    n: inFeatures, k: rank)
                let other = DenseAlgebra.product(
                    .init(reader.floats(up2)), .init(reader.floats(down2)), m: outFeatures,
                    n: inFeatures, k: rank)
                product.withUnsafeMutableBufferPointer { product in
                    other.withUnsafeBufferPointer { other in
                        for index in product.indices { product[index] *= other[index] }
                    }
                }
                return product
            }, scale: scale)
    }

    /// Row `p · rank + q` is the product of row p of one and row q of the other.
    private static func rowPairs(_ a: [Float], _ b: [Float], rank: Int) -> [Float] {
        let width = a.count / rank
        var pairs: [Float] = []
        pairs.reserveCapacity(rank * a.count)
        for p in 0..<rank {
            for q in 0..<rank {
                for column in 0..<width {
                    pairs.append(a[p * width + column] * b[q * width + column])
                }
            }
        }
        return pairs
    }

    /// Column `p · rank + q` is the product of column p of one and column q of the other.
    private static func columnPairs(_ a: [Float], _ b: [Float], rank: Int) -> [Float] {
        var pairs: [Float] = []
        pairs.reserveCapacity(rank * a.count)
        for start in stride(from: 0, to: a.count, by: rank) {
            for p in 0..<rank {
                for q in 0..<rank { pairs.append(a[start + p] * b[start + q]) }
            }
        }
        return pairs
    }
}

/// `r`, `alpha` and their patterns, which LoHa and LoKr share: the scale is `alpha / r`.
struct LycorisScaling {
    /// Of both methods; some concern convolutions or training only.
    static let knownFields: Set<String> = [
        "alpha", "alpha_pattern", "init_weights", "module_dropout", "r", "rank_dropout",
        "rank_pattern", "use_effective_conv2d",
    ]

    private let source: AdapterSource
    private let rank: Int
    private let alpha: Double
    private let rankOverrides: ModuleOverrides
    private let alphaOverrides: ModuleOverrides

    init(_ source: AdapterSource) throws(AdapterError) {
        self.source = source
        rank = try source.integer("r") ?? 8
        alpha = try source.number("alpha") ?? 8
        rankOverrides = try ModuleOverrides("rank_pattern", source: source)
        alphaOverrides = try ModuleOverrides("alpha_pattern", source: source)
    }

    /// The ranks that a module may have: of several patterns that match, peft may have taken another
    /// in training, since it sorts them when it saves.
    func ranks(_ module: BaseModule) throws(AdapterError) -> [Int] {
        let overrides = try rankOverrides.values(for: module.path)
        return overrides.isEmpty ? [rank] : overrides.compactMap { Int(exactly: $0) }
    }

    func scale(_ module: BaseModule, rank: Int) throws(AdapterError) -> Float {
        let alpha = try alphaOverrides.values(for: module.path).first ?? alpha
        return try source.scale("alpha", alpha / Double(rank))
    }
}
