import LorryTensor

/// HRA (arXiv 2405.17484): `y = W H₀ H₁ … x + b` with Householder reflections `H = I - 2 u uᵀ` of
/// unit vectors; with `apply_GS` the vectors are made orthogonal first (Gram and Schmidt). Tensors,
/// as peft 0.21 saves them:
///
///     base_model.model.<module>.hra_u  [inFeatures, r]
///
/// Since `H₀ H₁ … = I + Y Uᵀ`, it is a delta of rank r: `y = W x + (W Y)(Uᵀ x) + b`, with the
/// product W Y made when the adapter is brought into memory.
struct HRAMethod: PEFTMethod {
    let peftTypes = ["HRA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: ["r", "apply_GS", "init_weights", "bias"])
        let biases = try SavedBiases(source, only: "hra_only")
        let isOrthogonal = try source.flag("apply_GS")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.targets(having: "hra_u")
        for module in targets {
            try add(module, isOrthogonal: isOrthogonal, &tensors, &builder)
        }
        try biases.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "hra"
    }

    private func add(
        _ module: BaseModule, isOrthogonal: Bool, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        guard module.isLinear else {
            throw tensors.source.unsupported(
                "target_modules", "'\(module.path)' is not supported as a target of this method")
        }
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let tensor = try tensors.require(module, "hra_u", shape: [inFeatures, nil])
        let rank = tensor.shape[1]
        guard rank <= inFeatures else {
            throw tensors.source.badTensor(
                tensor.name, "has \(rank) reflections of \(inFeatures) inputs")
        }
        let place = TensorPlace(tensor)
        let weight = builder.weight(of: module)
        let factors = SharedOperands(
            key: "reflections of \(module.path)",
            counts: [rank * inFeatures, outFeatures * rank]
        ) { reader throws(AdapterError) in
            let reflections = try Reflections(
                transpose(reader.floats(place), rowCount: inFeatures), width: inFeatures,
                isOrthogonal: isOrthogonal, of: place)
            let up = DenseAlgebra.product(
                .init(try reader.floats(weight)), .init(reflections.left, .transposed),
                m: outFeatures, n: rank, k: inFeatures)
            return [reflections.right, up]
        }
        builder.addLowRank(at: module, rank: rank, down: factors[0], up: factors[1])
    }
}

/// A product of Householder reflections as `I + Y Uᵀ` (Schreiber and Van Loan's compact form).
private struct Reflections {
    /// Yᵀ, `[count, width]`.
    private(set) var left: [Float] = []
    /// Uᵀ, `[count, width]`: unit vectors.
    private(set) var right: [Float] = []

    init(
        _ vectors: [Float], width: Int, isOrthogonal: Bool, of place: TensorPlace
    ) throws(AdapterError) {
        let count = vectors.count / width
        var units: [[Double]] = []
        var columns: [[Double]] = []
        for index in 0..<count {
            var vector = vectors[index * width..<(index + 1) * width].map(Double.init)
            if isOrthogonal {
                for unit in units { Self.add(-Self.dot(unit, vector), unit, to: &vector) }
            }
            let length = Self.dot(vector, vector).squareRoot()
            guard length > 0, length.isFinite else {
                throw place.bad("has a vector of no direction")
            }
            vector = vector.map { $0 / length }
            // Y gains -2 (I + Y Uᵀ) u. Of orthogonal vectors that is -2 u.
            var column = vector
            if !isOrthogonal {
                for (unit, earlier) in zip(units, columns) {
                    Self.add(Self.dot(unit, vector), earlier, to: &column)
                }
            }
            column = column.map { -2 * $0 }
            units.append(vector)
            columns.append(column)
        }
        right = units.flatMap { $0.map { Float($0) } }
        left = columns.flatMap { $0.map { Float($0) } }
    }

    private static func dot(_ a: [Double], _ b: [Double]) -> Double {
        var sum = 0.0
        for index in a.indices { sum += a[index] * b[index] }
        return sum
    }

    private static func add(_ factor: Double, _ a: [Double], to b: inout [Double]) {
        for index in b.indices { b[index] += factor * a[index] }
    }
}
