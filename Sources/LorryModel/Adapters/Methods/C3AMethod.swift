import LorryTensor

/// C3A (arXiv 2407.19342): `y = W x + D x + b` with a D of circulant blocks,
/// `D[j, t] = w[(t - j) mod blockSize] / inFeatures` within a block. Tensors, as peft 0.21 saves
/// them:
///
///     base_model.model.<module>.c3a_kernel
///         [outFeatures / blockSize, inFeatures / blockSize, blockSize]
struct C3AMethod: PEFTMethod {
    let peftTypes = ["C3A"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        // The size of blocks is the kernel's.
        try source.refuseUnknownFields(known: [
            "block_size", "block_size_pattern", "bias", "init_weights",
        ])
        let biases = try SavedBiases(source, only: "c3a_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.targets(having: "c3a_kernel")
        try tensors.requireLayers(targets)
        for module in targets {
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            let kernel = try tensors.require(module, "c3a_kernel", shape: [nil, nil, nil])
            let blockSize = kernel.shape[2]
            guard kernel.shape[0] * blockSize == outFeatures,
                kernel.shape[1] * blockSize == inFeatures
            else {
                throw source.badTensor(
                    kernel.name,
                    "has shape \(kernel.shape), which are no blocks of "
                        + "[\(outFeatures), \(inFeatures)]")
            }
            let place = TensorPlace(kernel)
            let columns = Operand.derived(count: place.count) { reader in
                let floats = reader.floats(place)
                var columns = [Float](repeating: 0, count: floats.count)
                for start in stride(from: 0, to: floats.count, by: blockSize) {
                    for row in 0..<blockSize {
                        columns[start + row] =
                            floats[start + (blockSize - row) % blockSize] / Float(inFeatures)
                    }
                }
                return columns
            }
            builder.addCirculant(at: module, blockSize: blockSize, columns: columns)
        }
        try biases.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "c3a"
    }
}
