import LorryTensor

/// Super-Tuning (arXiv 2607.09287): `y = (W + S) x + (alpha / r) B (A x) + b` with a sparse S, and
/// without A and B unless `r` is set. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.supertuning_values   [n]
///     base_model.model.<module>.supertuning_indices  [n], whole numbers: places in the flat W
///     base_model.model.<module>.supertuning_lora_A.weight  [r, inFeatures]
///     base_model.model.<module>.supertuning_lora_B.weight  [outFeatures, r]
///
/// Without indices they are the places of the n largest numbers of W by magnitude (the smallest
/// without `select_top`), in the order of the magnitudes.
struct SuperTuningMethod: PEFTMethod {
    let peftTypes = ["SUPERTUNING"]

    private struct Options {
        let selectsLargest: Bool
        let rank: Int?
        let alpha: Double?
    }

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "sparsity", "select_top", "r", "lora_alpha", "lora_dropout", "init_weights",
            "save_precomputed_indices",
        ])
        let options = Options(
            selectsLargest: try source.flag("select_top", default: true),
            rank: try source.integer("r"), alpha: try source.number("lora_alpha"))
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "supertuning_values")
        for module in targets {
            try addSparse(module, options, &tensors, &builder)
            try addLowRank(module, options, &tensors, &builder)
        }
        try tensors.requireEmpty()
        return "supertuning"
    }

    private func addSparse(
        _ module: BaseModule, _ options: Options, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let size = outFeatures * inFeatures
        let values = TensorPlace(try tensors.require(module, "supertuning_values", shape: [nil]))
        guard values.count <= size else {
            throw tensors.source.badTensor(values.name, "has more numbers than the base's weight")
        }
        var indices: TensorPlace?
        if tensors.has(module, "supertuning_indices") {
            indices = TensorPlace(
                try tensors.requireIntegers(
                    module, "supertuning_indices", shape: [values.count]))
        }
        let weight = builder.weight(of: module)
        builder.addSparse(at: module, count: values.count) {
            [indices] reader throws(AdapterError) in
            let places: [Int]
            if let indices {
                places = reader.integers(indices)
                if let outside = places.first(where: { !(0..<size).contains($0) }) {
                    throw indices.bad(
                        "has a place \(outside) outside of the weight's \(size)")
                }
            } else {
                places = try MagnitudeOrder.places(
                    in: reader.floats(weight), count: values.count,
                    largest: options.selectsLargest, for: values)
            }
            return zip(places, reader.floats(values)).map {
                SparseEntry(row: $0 / inFeatures, column: $0 % inFeatures, value: $1)
            }
        }
    }

    private func addLowRank(
        _ module: BaseModule, _ options: Options, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        guard let rank = options.rank else { return }
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let down = try tensors.require(
            module, "supertuning_lora_A", shape: [rank, inFeatures])
        let up = try tensors.require(module, "supertuning_lora_B", shape: [outFeatures, rank])
        let scale = try tensors.source.scale(
            "lora_alpha", (options.alpha ?? 2 * Double(rank)) / Double(rank))
        builder.addProduct(
            at: module, rank: rank, down: .tensor(down), up: .tensor(up), scale: scale)
    }
}

extension AdapterTensors {
    /// Whether the file has a module's tensor that was not taken yet.
    fileprivate func has(_ module: BaseModule, _ name: String) -> Bool {
        modules(having: name).contains(module)
    }
}

/// The places of a matrix's numbers in the order of their magnitudes.
private enum MagnitudeOrder {
    /// The places of the `count` numbers of largest or smallest magnitude, that first.
    ///
    /// - Throws: `AdapterError` where two of them are equal, since then their order is the
    ///   training machine's own.
    static func places(
        in numbers: [Float], count: Int, largest: Bool, for values: TensorPlace
    ) throws(AdapterError) -> [Int] {
        // Magnitudes order as their bits do; complements order the other way round.
        let keys = numbers.map {
            largest ? ~$0.magnitude.bitPattern : $0.magnitude.bitPattern
        }
        // The keys' upper halves say where the last of those wanted lies.
        var tallies = [Int](repeating: 0, count: 1 << 16)
        for key in keys { tallies[Int(key >> 16)] += 1 }
        var total = 0
        var last = 0
        while last < tallies.count - 1 {
            total += tallies[last]
            // One more than is wanted, to see whether it is equal.
            if total > count { break }
            last += 1
        }
        var candidates: [(key: UInt32, place: Int)] = []
        for (place, key) in keys.enumerated() where Int(key >> 16) <= last {
            candidates.append((key, place))
        }
        candidates.sort { $0.key < $1.key }
        for (earlier, later) in zip(candidates.prefix(count), candidates.dropFirst())
        where earlier.key == later.key {
            throw values.bad(
                "has no supertuning_indices, and they cannot be found again: the base's weight has "
                    + "equal magnitudes", .unsupported)
        }
        return candidates.prefix(count).map(\.place)
    }
}
