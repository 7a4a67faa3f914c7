import LorryTensor

/// RandLoRA (arXiv 2502.00987): `y = W x + b + alpha / r · U V x`, of full rank.
///
/// With m and M the smaller and the larger of a module's features and `n = ⌈m / r⌉` bases,
/// `a[k · n + q, j] = λ[k, q] A[k, j] γ[q, j]` is `[r · n, m]` and `b[j, q · r + k] = B[j, q, k]` is
/// `[M, n · r]`; V is a and U is b where inFeatures is m, else V is bᵀ and U is aᵀ. (peft orders
/// the inner dimension of a and b differently, and so is this.)
///
/// A and B are shared by all modules. Where the file does not have them they are drawn as peft
/// does. Tensors, as peft 0.21 saves them; A and B also once more under each module:
///
///     base_model.randlora_A  [r, 1, largest m]
///     base_model.randlora_B  [largest M, largest n, r]
///     base_model.model.<module>.randlora_lambda  [r, n]
///     base_model.model.<module>.randlora_gamma   [n, m]
struct RandLoRAMethod: PEFTMethod {
    let peftTypes = ["RANDLORA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "bias", "fan_in_fan_out", "init_weights", "projection_prng_key", "r",
            "randlora_alpha", "randlora_dropout", "save_projection", "sparse", "very_sparse",
        ])
        let rank = try source.rank("r", default: 32)
        let alpha = try source.number("randlora_alpha") ?? 640
        let scale = try source.scale("randlora_alpha", alpha / Double(rank))
        let bias = try SavedBiases(source, only: "randlora_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "randlora_lambda")
        let bases = try RandLoRABases(rank: rank, targets: targets, &tensors, builder)
        for module in targets {
            try add(module, bases, scale: scale, &tensors, &builder)
        }
        try bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "randlora"
    }

    private func add(
        _ module: BaseModule, _ bases: RandLoRABases, scale: Float,
        _ tensors: inout AdapterTensors, _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let rank = bases.rank
        let (small, large) = (min(outFeatures, inFeatures), max(outFeatures, inFeatures))
        let count = (small + rank - 1) / rank
        let lambda = TensorPlace(
            try tensors.require(module, "randlora_lambda", shape: [rank, count]))
        let gamma = TensorPlace(
            try tensors.require(module, "randlora_gamma", shape: [count, small]))
        builder.addDense(
            at: module,
            matrix: .derived(count: outFeatures * inFeatures) { reader throws(AdapterError) in
                let a = Self.scaled(
                    try reader.floats(bases.first), width: bases.width, reader.floats(lambda),
                    reader.floats(gamma), rank: rank, count: count, small: small)
                let b = Self.corner(
                    try reader.floats(bases.second), stride: bases.count * rank, rows: large,
                    columns: count * rank)
                let inner = rank * count
                return small == inFeatures
                    ? DenseAlgebra.product(
                        .init(b), .init(a), m: outFeatures, n: inFeatures, k: inner)
                    : DenseAlgebra.product(
                        .init(a, .transposed), .init(b, .transposed), m: outFeatures,
                        n: inFeatures, k: inner)
            }, scale: scale)
    }

    private static func scaled(
        _ base: [Float], width: Int, _ lambda: [Float], _ gamma: [Float], rank: Int, count: Int,
        small: Int
    ) -> [Float] {
        var result = [Float](repeating: 0, count: rank * count * small)
        result.withUnsafeMutableBufferPointer { result in
            for k in 0..<rank {
                for q in 0..<count {
                    let factor = lambda[k * count + q]
                    let start = (k * count + q) * small
                    for j in 0..<small {
                        result[start + j] = base[k * width + j] * factor * gamma[q * small + j]
                    }
                }
            }
        }
        return result
    }

    private static func corner(
        _ matrix: [Float], stride: Int, rows: Int, columns: Int
    ) -> [Float] {
        var corner: [Float] = []
        corner.reserveCapacity(rows * columns)
        for row in 0..<rows { corner += matrix[row * stride..<row * stride + columns] }
        return corner
    }
}

/// RandLoRA's A and B.
struct RandLoRABases: Sendable {
    let rank: Int
    /// Columns of A.
    let width: Int
    /// Bases in B.
    let count: Int
    let first: Operand
    let second: Operand

    init(
        rank: Int, targets: [BaseModule], _ tensors: inout AdapterTensors,
        _ builder: AdapterProgramBuilder
    ) throws(AdapterError) {
        self.rank = rank
        let dimensions = targets.map { builder.dimensions(of: $0) }
        // The largest outputs and the largest inputs, from whatever modules.
        let outFeatures = dimensions.map(\.outFeatures).max() ?? 0
        let inFeatures = dimensions.map(\.inFeatures).max() ?? 0
        let (small, large) = (min(outFeatures, inFeatures), max(outFeatures, inFeatures))
        let needed = (small + rank - 1) / rank
        let names = ["base_model.randlora_A", "base_model.randlora_B"]
        let isSaved = try tensors.source.flag("save_projection", default: true)
        // The same tensors once more, under the modules.
        tensors.discard { name in
            (name.hasSuffix(".randlora_A") || name.hasSuffix(".randlora_B"))
                && !(isSaved && names.contains(name))
        }
        if isSaved {
            let down = try tensors.require(names[0], shape: [rank, 1, nil])
            let up = try tensors.require(names[1], shape: [nil, nil, rank])
            guard down.shape[2] >= small else {
                throw tensors.source.badTensor(down.name, "is smaller than the largest target")
            }
            guard up.shape[0] >= large, up.shape[1] >= needed else {
                throw tensors.source.badTensor(up.name, "is smaller than the largest target")
            }
            width = down.shape[2]
            count = up.shape[1]
            (first, second) = (.tensor(down), .tensor(up))
            return
        }
        width = small
        count = needed
        let seed = try tensors.source.seed("projection_prng_key", default: 0)
        let draw = Draw(rank: rank, small: small, large: large, count: needed, seed: seed)
        let sparsity: Double? =
            try tensors.source.flag("very_sparse")
            ? Double(small).squareRoot() : try tensors.source.flag("sparse") ? 3 : nil
        let drawn = SharedOperands(
            key: "bases", counts: [rank * small, large * needed * rank],
            usesOfEach: targets.count
        ) { _ in
            sparsity.map { draw.sparse($0) } ?? draw.dense()
        }
        (first, second) = (drawn[0], drawn[1])
    }

    /// Draws A and B as peft does.
    private struct Draw: Sendable {
        let rank: Int
        let small: Int
        let large: Int
        let count: Int
        let seed: Int

        /// Uniform in bf16, A before B's bases one after the other, each matrix divided by its
        /// standard deviation.
        func dense() -> [[Float]] {
            var generator = TorchGenerator(seed: seed)
            func draw(_ count: Int, _ fan: Int) -> [Float] {
                let bound = Float(1 / Double(fan).squareRoot())
                return generator.roundedUniform(count: count, from: -bound, to: bound)
            }
            let first = draw(rank * small, small)
            var second = [Float](repeating: 0, count: large * count * rank)
            for base in 0..<count {
                let numbers = draw(large * rank, rank)
                for row in 0..<large {
                    for k in 0..<rank {
                        second[(row * count + base) * rank + k] = numbers[row * rank + k]
                    }
                }
            }
            return [first, second].map { numbers in
                let deviation = Float(Self.deviation(numbers)).roundedToBFloat16
                return numbers.map { ($0 / deviation).roundedToBFloat16 }
            }
        }

        /// -1, 0 or 1, of which `1 / sparsity` are not 0, divided by their standard deviation.
        func sparse(_ sparsity: Double) -> [[Float]] {
            var generator = TorchGenerator(seed: seed)
            let low = Float(1 / (2 * sparsity))
            let high = Float(1 - 1 / (2 * sparsity))
            return [rank * small, large * count * rank].map { count in
                let numbers = generator.uniform(count: count, from: 0, to: 1).map {
                    $0 < low ? Float(-1) : $0 > high ? 1 : 0
                }
                let deviation = Float(Self.deviation(numbers))
                return numbers.map { $0 / deviation }
            }
        }

        private static func deviation(_ numbers: [Float]) -> Double {
            let count = Double(numbers.count)
            let mean = numbers.reduce(0.0) { $0 + Double($1) } / count
            let squares = numbers.reduce(0.0) { $0 + (Double($1) - mean) * (Double($1) - mean) }
            return (squares / (count - 1)).squareRoot()
        }
    }
}
