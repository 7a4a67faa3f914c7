import LorryTensor

/// MiSS (arXiv 2409.15371) and Bone, its earlier name: `y = W x + b + blockᵀ z`, where `z_k` is the
/// sum of the inputs j with `j mod r = k`.
///
/// With `init_weights` `mini` the block's columns repeat over the outputs. With `bat` each block of
/// r rows a of W and each block of r columns b change by `W_ab B_a + B_a`. Tensors, as peft saves
/// them (`bone_block` for Bone):
///
///     base_model.model.<module>.miss_block  [r, outFeatures]
///                                     mini: [r, mini_r]
///                                      bat: [outFeatures / r, r, r]
struct MiSSMethod: PEFTMethod {
    let peftTypes = ["MISS", "BONE"]

    private enum Variant {
        case plain
        case mini(Int)
        case bat
    }

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "bias", "bone_dropout", "init_weights", "mini_r", "miss_dropout", "r",
        ])
        let isBone = source.configuration["peft_type"]?.stringValue == "BONE"
        let rank = try source.rank("r", default: 64)
        let variant = try Self.variant(source)
        let bias = try SavedBiases(source, only: isBone ? "Bone_only" : "MiSS_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let name = isBone ? "bone_block" : "miss_block"
        let targets = try tensors.linearTargets(having: name)
        for module in targets {
            switch variant {
            case .bat: try addBlocks(module, name, rank: rank, &tensors, &builder)
            case .plain: try addSums(module, name, rank: rank, width: nil, &tensors, &builder)
            case .mini(let width):
                try addSums(module, name, rank: rank, width: width, &tensors, &builder)
            }
        }
        try bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return isBone ? "bone" : "miss"
    }

    private static func variant(_ source: AdapterSource) throws(AdapterError) -> Variant {
        guard let field = source.present("init_weights"), field.boolValue == nil else {
            return .plain
        }
        switch field.stringValue {
        case "mini": return .mini(try source.integer("mini_r") ?? 1)
        case "bat": return .bat
        default: throw source.bad("init_weights", "is not true, false, mini or bat")
        }
    }

    /// - Parameter width: of the block, which repeats; nil: it is whole.
    private func addSums(
        _ module: BaseModule, _ name: String, rank: Int, width: Int?,
        _ tensors: inout AdapterTensors, _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let width = width ?? outFeatures
        guard outFeatures % width == 0 else {
            throw tensors.source.bad("mini_r", "does not divide \(module.path)")
        }
        let block = try tensors.require(module, name, shape: [rank, width])
        let place = TensorPlace(block)
        builder.addProduct(
            at: module, rank: rank,
            down: .derived(count: rank * inFeatures) { _ in
                var sums = [Float](repeating: 0, count: rank * inFeatures)
                for column in 0..<inFeatures { sums[column % rank * inFeatures + column] = 1 }
                return sums
            },
            up: .derived(count: outFeatures * rank) { reader in
                let floats = reader.floats(place)
                var up: [Float] = []
                up.reserveCapacity(outFeatures * rank)
                for row in 0..<outFeatures {
                    for k in 0..<rank { up.append(floats[k * width + row % width]) }
                }
                return up
            })
    }

    private func addBlocks(
        _ module: BaseModule, _ name: String, rank: Int, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        guard outFeatures % rank == 0, inFeatures % rank == 0 else {
            throw tensors.source.bad("r", "does not divide \(module.path)")
        }
        let blocks = try tensors.require(module, name, shape: [outFeatures / rank, rank, rank])
        let place = TensorPlace(blocks)
        let weight = builder.weight(of: module)
        builder.addDense(
            at: module,
            matrix: .derived(count: outFeatures * inFeatures) { reader throws(AdapterError) in
                Self.blockProducts(
                    try reader.floats(weight), reader.floats(place), rank: rank,
                    outFeatures: outFeatures, inFeatures: inFeatures)
            })
    }

    /// `W_ab B_a + B_a` for all blocks: the r rows of W in a are, read as `[inFeatures, r]`, its
    /// blocks' rows, all of which B_a multiplies.
    private static func blockProducts(
        _ weight: [Float], _ blocks: [Float], rank: Int, outFeatures: Int, inFeatures: Int
    ) -> [Float] {
        var result = [Float](repeating: 0, count: weight.count)
        for row in 0..<outFeatures {
            let source = row * rank..<(row + 1) * rank
            for column in stride(from: row * inFeatures, to: (row + 1) * inFeatures, by: rank) {
                for k in 0..<rank { result[column + k] = blocks[source.lowerBound + k] }
            }
        }
        let size = rank * inFeatures
        weight.withUnsafeBufferPointer { weight in
            blocks.withUnsafeBufferPointer { blocks in
                result.withUnsafeMutableBufferPointer { result in
                    guard let weight = weight.baseAddress, let blocks = blocks.baseAddress,
                        let result = result.baseAddress
                    else { return }
                    for block in 0..<outFeatures / rank {
                        DenseAlgebra.gemm(
                            .init(weight + block * size, stride: rank),
                            .init(blocks + block * rank * rank, stride: rank), m: inFeatures,
                            n: rank, k: rank, beta: 1, c: result + block * size, cStride: rank)
                    }
                }
            }
        }
        return result
    }
}
