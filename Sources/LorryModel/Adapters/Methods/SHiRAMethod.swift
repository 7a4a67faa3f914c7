import LorryTensor

/// SHiRA (arXiv 2406.13175): `y = (W + S) x + b` with a sparse S. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.shira_weight   [n]
///     base_model.model.<module>.shira_indices  [2, n], whole numbers: outputs, then inputs
struct SHiRAMethod: PEFTMethod {
    let peftTypes = ["SHIRA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        // The mask and its seed only chose the places, which the file has.
        try source.refuseUnknownFields(known: [
            "r", "mask_type", "random_seed", "fan_in_fan_out", "init_weights",
        ])
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "shira_weight")
        for module in targets {
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            let values = TensorPlace(try tensors.require(module, "shira_weight", shape: [nil]))
            let indices = TensorPlace(
                try tensors.requireIntegers(module, "shira_indices", shape: [2, values.count]))
            builder.addSparse(at: module, count: values.count) { reader throws(AdapterError) in
                let (floats, places) = (reader.floats(values), reader.integers(indices))
                var entries: [SparseEntry] = []
                entries.reserveCapacity(floats.count)
                for index in floats.indices {
                    let (row, column) = (places[index], places[floats.count + index])
                    guard (0..<outFeatures).contains(row), (0..<inFeatures).contains(column)
                    else {
                        throw indices.bad(
                            "has a place [\(row), \(column)] outside of "
                                + "[\(outFeatures), \(inFeatures)]")
                    }
                    entries.append(SparseEntry(row: row, column: column, value: floats[index]))
                }
                return entries
            }
        }
        try tensors.requireEmpty()
        return "shira"
    }
}
