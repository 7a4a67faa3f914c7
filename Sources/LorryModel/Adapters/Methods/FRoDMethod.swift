import LorryTensor

/// FRoD (AAAI 2026, doi 10.1609/aaai.v40i31.39813): `y = U (S + diag l) Vᵀ x + b` with one V for all
/// layers' modules of a name, a sparse S, and for U the columns of `W V⁻ᵀ`, each of length 1.
/// Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.frod_lambda_l         [inFeatures]
///     base_model.model.<module>.frod_lambda_s_values  [n]
///     base_model.frod_V.<category>          [inFeatures, inFeatures]
///     base_model.frod_s_indices.<category>  [2, n], whole numbers: rows, then columns of S
///     base_model.frod_s_size.<category>     [2], whole numbers
///
/// where `self_attn_q_proj` is a category. The delta to W is one matrix, made when the adapter is
/// brought into memory.
struct FRoDMethod: PEFTMethod {
    let peftTypes = ["FROD"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "projection_prng_key", "save_projection", "frod_dropout", "fan_in_fan_out", "bias",
            "init_weights", "sparse_rate", "regularization_alpha", "progressbar",
            "runtime_offload_base_weight",
        ])
        guard try source.flag("save_projection", default: true) else {
            throw source.unsupported(
                "save_projection", "is false: what is not saved cannot be made again exactly")
        }
        let biases = try SavedBiases(source, only: "frod_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "frod_lambda_l")
        var projections: [String: Projection] = [:]
        for module in targets {
            let inFeatures = builder.dimensions(of: module).inFeatures
            let category = Self.category(of: module)
            let projection: Projection
            if let known = projections[category] {
                projection = known
            } else {
                projection = try Projection(category, width: inFeatures, &tensors)
                projections[category] = projection
            }
            try add(module, projection, &tensors, &builder)
        }
        try biases.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "frod"
    }

    /// The last two parts of a module's path: `self_attn_q_proj`.
    private static func category(of module: BaseModule) -> String {
        module.path.split(separator: ".").suffix(2).joined(separator: "_")
    }

    private func add(
        _ module: BaseModule, _ projection: Projection, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let diagonal = TensorPlace(
            try tensors.require(module, "frod_lambda_l", shape: [inFeatures]))
        var values: TensorPlace?
        if projection.sparseCount > 0 {
            values = TensorPlace(
                try tensors.require(
                    module, "frod_lambda_s_values", shape: [projection.sparseCount]))
        } else {
            _ = tensors.take(module, "frod_lambda_s_values")
        }
        let weight = builder.weight(of: module)
        builder.addDense(
            at: module,
            matrix: .derived(count: outFeatures * inFeatures) {
                [values] reader throws(AdapterError) in
                let base = try reader.floats(weight)
                let basis = reader.floats(projection.basis)
                let left = try Self.unitColumns(
                    base, basis, of: projection.basis, outFeatures: outFeatures,
                    inFeatures: inFeatures)
                let middle = try projection.middle(
                    diagonal: reader.floats(diagonal), values: values, reader)
                let product = DenseAlgebra.product(
                    .init(left), .init(middle), m: outFeatures, n: inFeatures, k: inFeatures)
                var delta = DenseAlgebra.product(
                    .init(product), .init(basis, .transposed), m: outFeatures, n: inFeatures,
                    k: inFeatures)
                for index in delta.indices { delta[index] -= base[index] }
                return delta
            })
    }

    /// The columns of `W V⁻ᵀ`, each divided by its length. `[outFeatures, inFeatures]`
    private static func unitColumns(
        _ weight: [Float], _ basis: [Float], of place: TensorPlace, outFeatures: Int,
        inFeatures: Int
    ) throws(AdapterError) -> [Float] {
        // V X = Wᵀ, so that row c of X is column c of W V⁻ᵀ.
        let rows: [Double]
        do throws(DenseAlgebra.Failure) {
            rows = try DenseAlgebra.solve(
                basis.map(Double.init),
                transpose(weight, rowCount: outFeatures).map(Double.init), size: inFeatures,
                columns: outFeatures)
        } catch {
            throw place.bad("cannot be inverted: \(error)")
        }
        var units = [Float](repeating: 0, count: weight.count)
        for column in 0..<inFeatures {
            let row = rows[column * outFeatures..<(column + 1) * outFeatures]
            let length = row.reduce(0) { $0 + $1 * $1 }.squareRoot()
            guard length > 1e-12 else { continue }
            for (index, value) in row.enumerated() {
                units[index * inFeatures + column] = Float(value / length)
            }
        }
        return units
    }
}

/// What all modules of a category share.
private struct Projection: Sendable {
    /// V, `[width, width]`.
    let basis: TensorPlace
    let sparseCount: Int
    private let width: Int
    private let indices: TensorPlace?
    /// Repeats what V's shape says.
    private let size: TensorPlace?

    init(_ category: String, width: Int, _ tensors: inout AdapterTensors) throws(AdapterError) {
        self.width = width
        basis = TensorPlace(
            try tensors.require("\(Self.prefix)V.\(category)", shape: [width, width]))
        let name = "\(Self.prefix)s_indices.\(category)"
        guard let tensor = tensors.take(name) else {
            throw AdapterError(
                .invalid, "\(tensors.source.weightsName): has no tensor '\(name)'")
        }
        guard tensor.dtype.isInteger, tensor.shape.count == 2, tensor.shape[0] == 2 else {
            throw tensors.source.badTensor(name, "has shape \(tensor.shape) of \(tensor.dtype)")
        }
        size = try Self.size(category, &tensors)
        sparseCount = tensor.shape[1]
        indices = sparseCount > 0 ? TensorPlace(tensor) : nil
    }

    private static let prefix = "base_model.frod_"

    private static func size(
        _ category: String, _ tensors: inout AdapterTensors
    ) throws(AdapterError) -> TensorPlace? {
        guard let tensor = tensors.take("\(prefix)s_size.\(category)") else { return nil }
        guard tensor.dtype.isInteger, tensor.shape == [2] else {
            throw tensors.source.badTensor(
                tensor.name, "has shape \(tensor.shape) of \(tensor.dtype), expected two integers")
        }
        return TensorPlace(tensor)
    }

    /// `S + diag l`, `[width, width]`.
    func middle(
        diagonal: [Float], values: TensorPlace?, _ reader: OperandReader
    ) throws(AdapterError) -> [Float] {
        var matrix = [Float](repeating: 0, count: width * width)
        for (index, value) in diagonal.enumerated() { matrix[index * width + index] = value }
        if let size, reader.integers(size) != [width, width] {
            throw size.bad("is \(reader.integers(size)), expected [\(width), \(width)]")
        }
        guard let indices, let values else { return matrix }
        let places = reader.integers(indices)
        for (index, value) in reader.floats(values).enumerated() {
            let (row, column) = (places[index], places[sparseCount + index])
            guard (0..<width).contains(row), (0..<width).contains(column) else {
                throw indices.bad(
                    "has a place [\(row), \(column)] outside of [\(width), \(width)]")
            }
            matrix[row * width + column] += value
        }
        return matrix
    }
}
