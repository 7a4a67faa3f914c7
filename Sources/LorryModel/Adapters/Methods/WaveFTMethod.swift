import LorryTensor

/// WaveFT (arXiv 2505.12532): `y = W x + D x + b`, where D is `scaling` times the inverse wavelet
/// transform, of one level in two dimensions, of a spectrum with n numbers; with `use_idwt` false it
/// is the spectrum itself. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.waveft_spectrum  [n]
///
/// Their places are random as FourierFT's, in a matrix of `[outFeatures, inFeatures]` that lies in
/// the middle of the spectrum. A number there gives as many numbers of D as the filter squared has,
/// so that D is sparse, but for long filters.
struct WaveFTMethod: PEFTMethod {
    let peftTypes = ["WAVEFT"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        // How many frequencies a module has is seen from its tensor.
        try source.refuseUnknownFields(known: [
            "n_frequency", "n_frequency_pattern", "proportional_parameters", "scaling",
            "wavelet_family", "use_idwt", "random_loc_seed", "fan_in_fan_out", "bias",
            "init_weights",
        ])
        let biases = try SavedBiases(source, only: "waveft_only")
        let scaling = try source.scale("scaling", try source.number("scaling") ?? 25)
        let seed = try RandomPlaces.seed(source)
        let filters = try filters(source)
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "waveft_spectrum")
        for module in targets {
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            let tensor = try tensors.require(module, "waveft_spectrum", shape: [nil])
            guard tensor.shape[0] <= outFeatures * inFeatures else {
                throw source.badTensor(tensor.name, "has more numbers than the base's weight")
            }
            let delta = WaveletDelta(
                places: RandomPlaces(
                    seed: seed, outFeatures: outFeatures, inFeatures: inFeatures,
                    count: tensor.shape[0]),
                filters: filters, scaling: scaling)
            delta.add(TensorPlace(tensor), at: module, to: &builder)
        }
        try biases.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "waveft"
    }

    /// Nil where there is no transform.
    private func filters(_ source: AdapterSource) throws(AdapterError) -> WaveletFilters? {
        let name = try source.string("wavelet_family") ?? "db1"
        guard try source.flag("use_idwt", default: true) else { return nil }
        guard let filters = WaveletFilters(name: name) else {
            throw source.unsupported(
                "wavelet_family",
                "'\(name)' is not supported; db1 to db10, sym2 to sym10 and coif1 are")
        }
        return filters
    }
}

/// The delta of one module.
private struct WaveletDelta {
    let places: RandomPlaces
    /// Nil: the spectrum is the delta.
    let filters: WaveletFilters?
    let scaling: Float

    /// Numbers of the delta that one of the spectrum gives, at most.
    private var spread: Int { filters.map { $0.length * $0.length } ?? 1 }

    func add(
        _ spectrum: TensorPlace, at module: BaseModule, to builder: inout AdapterProgramBuilder
    ) {
        let size = places.outFeatures * places.inFeatures
        // A place takes more room and time than a number of a matrix.
        guard places.count * spread * 4 > size else {
            return builder.addSparse(at: module, count: places.count * spread) { reader in
                var entries: [SparseEntry] = []
                entries.reserveCapacity(places.count * spread)
                visit(reader.floats(spectrum)) {
                    entries.append(SparseEntry(row: $0, column: $1, value: $2))
                }
                // What falls off the edge is nothing at some place.
                let nothing = SparseEntry(row: 0, column: 0, value: 0)
                return entries
                    + [SparseEntry](
                        repeating: nothing, count: places.count * spread - entries.count)
            }
        }
        builder.addDense(
            at: module,
            matrix: .derived(count: size) { reader in
                var matrix = [Float](repeating: 0, count: size)
                visit(reader.floats(spectrum)) { matrix[$0 * places.inFeatures + $1] += $2 }
                return matrix
            })
    }

    /// Calls with row, column and value of each number that one of the spectrum gives.
    private func visit(_ spectrum: [Float], _ body: (Int, Int, Float) -> Void) {
        guard let filters else {
            for (value, place) in zip(spectrum, places.all()) {
                body(place.row, place.column, value * scaling)
            }
            return
        }
        let rows = WaveletAxis(count: places.outFeatures, filters: filters)
        let columns = WaveletAxis(count: places.inFeatures, filters: filters)
        for (value, place) in zip(spectrum, places.all()) {
            let down = rows.position(of: place.row)
            let right = columns.position(of: place.column)
            // The parts' order as peft has it: rows take the right half's filter.
            let rowFilter = filters.reconstruction(isDetail: right.isDetail)
            let columnFilter = filters.reconstruction(isDetail: down.isDetail)
            for (i, rowValue) in rowFilter.enumerated() {
                let row = down.start + i
                guard (0..<places.outFeatures).contains(row) else { continue }
                for (j, columnValue) in columnFilter.enumerated() {
                    let column = right.start + j
                    guard (0..<places.inFeatures).contains(column) else { continue }
                    body(row, column, value * scaling * rowValue * columnValue)
                }
            }
        }
    }
}

/// One axis of the transform.
private struct WaveletAxis {
    /// Coefficients of each half.
    private let half: Int
    private let offset: Int
    /// What is cut off before the first number that stays.
    private let cut: Int

    init(count: Int, filters: WaveletFilters) {
        let reduction = filters.length - 2
        let padded = (count + reduction + 1) / 2 * 2
        half = padded / 2
        offset = (padded - count) / 2
        cut = reduction + (padded - reduction - count) / 2
    }

    /// - Returns: which half a coefficient is in, and the first number that it gives.
    func position(of index: Int) -> (isDetail: Bool, start: Int) {
        let place = index + offset
        return (place >= half, 2 * (place % half) - cut)
    }
}
