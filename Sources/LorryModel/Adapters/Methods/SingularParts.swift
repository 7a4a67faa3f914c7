import LorryTensor

/// Parts of the base's weights that an adapter's training took away.
enum SingularParts {
    /// Takes away `U_r S_r V_rᵀ` of the `rank` largest singular values (PiSSA, arXiv 2404.02948).
    ///
    /// - Parameter usesOfEach: how often the parts are read, by the program and by others.
    static func subtractLargest(
        _ rank: Int, of module: BaseModule, usesOfEach: Int = 1,
        from builder: inout AdapterProgramBuilder
    ) {
        subtract(rank, of: module, usesOfEach: usesOfEach, from: &builder) { 0..<min(rank, $0) }
    }

    /// The same of the `rank` smallest (KaSA, arXiv 2412.06071).
    static func subtractSmallest(
        _ rank: Int, of module: BaseModule, from builder: inout AdapterProgramBuilder
    ) {
        subtract(rank, of: module, from: &builder) { max(0, $0 - rank)..<$0 }
    }

    private static func subtract(
        _ rank: Int, of module: BaseModule, usesOfEach: Int = 1,
        from builder: inout AdapterProgramBuilder,
        _ selection: @escaping @Sendable (Int) -> Range<Int>
    ) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let count = selection(min(outFeatures, inFeatures)).count
        let weight = builder.weight(of: module)
        let parts = SharedOperands(
            key: "singular parts of \(module.path)",
            counts: [count * inFeatures, outFeatures * count], usesOfEach: usesOfEach
        ) { reader throws(AdapterError) in
            let parts = try reader.singularParts(
                of: weight, rows: outFeatures, columns: inFeatures)
            let chosen = selection(parts.values.count)
            let width = parts.values.count
            var left: [Float] = []
            for row in 0..<outFeatures {
                left += chosen.map { parts.left[row * width + $0] * parts.values[$0] }
            }
            return [
                Array(parts.right[chosen.lowerBound * inFeatures..<chosen.upperBound * inFeatures]),
                left,
            ]
        }
        builder.addLowRank(
            at: module, rank: count, down: parts[0], up: parts[1], scale: -1)
    }

    /// Takes away `s · Q_r R_r` of the QR decomposition (OLoRA, arXiv 2406.01775).
    static func subtractOrthogonal(
        _ rank: Int, of module: BaseModule, scale: Float, usesOfEach: Int = 1,
        from builder: inout AdapterProgramBuilder
    ) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        // There are no more parts than the weight has rows or columns.
        let rank = min(rank, outFeatures, inFeatures)
        let weight = builder.weight(of: module)
        let parts = SharedOperands(
            key: "orthogonal parts of \(module.path)",
            counts: [rank * inFeatures, outFeatures * rank], usesOfEach: usesOfEach
        ) { reader throws(AdapterError) in
            let parts = try reader.orthogonalParts(
                of: weight, rows: outFeatures, columns: inFeatures)
            let width = min(outFeatures, inFeatures)
            var left: [Float] = []
            for row in 0..<outFeatures { left += parts.q[row * width..<row * width + rank] }
            return [Array(parts.r[..<(rank * inFeatures)]), left]
        }
        builder.addLowRank(
            at: module, rank: rank, down: parts[0], up: parts[1], scale: -scale)
    }
}

/// Operands that come out of one computation.
struct SharedOperands {
    private let operands: [Operand]

    /// - Parameters:
    ///   - key: names the computation within the adapter.
    ///   - counts: of the operands' numbers.
    ///   - usesOfEach: how often each operand is read.
    ///   - compute: gives the numbers of all; runs once for all that are asked for.
    init(
        key: String, counts: [Int], usesOfEach: Int = 1,
        _ compute: @escaping @Sendable (OperandReader) throws(AdapterError) -> [[Float]]
    ) {
        operands = counts.indices.map { index in
            .derived(count: counts[index]) { reader throws(AdapterError) in
                try reader.shared(key, uses: counts.count * usesOfEach) { () throws(AdapterError) in
                    try compute(reader)
                }[index]
            }
        }
    }

    subscript(_ index: Int) -> Operand { operands[index] }
}
