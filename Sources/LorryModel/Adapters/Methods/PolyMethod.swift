import Foundation
import LorryTensor

/// Polytropon (arXiv 2202.13914) and its multi-head routing (arXiv 2211.03831): a LoRA whose factors
/// are mixtures of skills, by the task t of the request. Inputs and outputs are cut in `splits`
/// parts q, each with a mixture of its own:
///
///     w[q, s] = σ(logits[t, q, s]) / Σ_s σ(logits[t, q, s])
///     y       = W x + b + (1 / r) · B (A x),  A[q] = Σ_s w[q, s] A[q, s],  B[q] likewise
///
/// Tensors:
///
///     base_model.model.<module>.poly_lora_A  [splits, skills, inFeatures / splits, r]
///                              .poly_lora_B  [splits, skills, r, outFeatures / splits]
///                              .poly_router.module_logits  [tasks, splits · skills]
struct PolyMethod: PEFTMethod {
    let peftTypes = ["POLY"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "init_weights", "n_skills", "n_splits", "n_tasks", "poly_type", "r",
        ])
        guard try source.string("poly_type") ?? "poly" == "poly" else {
            throw source.unsupported("poly_type", "is not poly")
        }
        let rank = try source.rank("r", default: 8)
        let taskCount = try source.integer("n_tasks") ?? 1
        let skillCount = try source.integer("n_skills") ?? 4
        let splitCount = try source.integer("n_splits") ?? 1
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        for module in try tensors.linearTargets(having: "poly_lora_A") {
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            guard inFeatures % splitCount == 0, outFeatures % splitCount == 0 else {
                throw source.bad(
                    "n_splits", "\(splitCount) does not divide the sizes of \(module.path)")
            }
            let (inPart, outPart) = (inFeatures / splitCount, outFeatures / splitCount)
            let down = try tensors.require(
                module, "poly_lora_A", shape: [splitCount, skillCount, inPart, rank])
            let up = try tensors.require(
                module, "poly_lora_B", shape: [splitCount, skillCount, rank, outPart])
            // Sizes that multiply to more than an Int holds have no tensor of that shape.
            let logits = try tensors.require(
                module, "poly_router.module_logits", shape: [taskCount, splitCount * skillCount])
            let mixtures = SkillMixtures(TensorPlace(logits), skillCount: skillCount)
            // Mixed they are [splits · inPart, r], so inputs by ranks, …
            let mixedDown = Operand.derived(count: rank * inFeatures) { reader in
                transpose(mixtures.mixing(TensorPlace(down), reader), rowCount: inFeatures)
            }
            // … and for each split [r, outPart].
            let mixedUp = Operand.derived(count: outFeatures * rank) { reader in
                let mixed = mixtures.mixing(TensorPlace(up), reader)
                return stride(from: 0, to: mixed.count, by: rank * outPart).flatMap {
                    transpose(Array(mixed[$0..<$0 + rank * outPart]), rowCount: rank)
                }
            }
            builder.addProduct(
                at: module, rank: rank, down: mixedDown, up: mixedUp, scale: 1 / Float(rank))
        }
        try tensors.requireEmpty()
        builder.taskCount = taskCount
        return "poly"
    }
}

/// How much of each skill the parts of a module take.
private struct SkillMixtures: Sendable {
    /// `[tasks, splits · skills]`
    private let logits: TensorPlace
    private let skillCount: Int

    init(_ logits: TensorPlace, skillCount: Int) {
        self.logits = logits
        self.skillCount = skillCount
    }

    /// Of `[splits, skills, …]` each split's sum over the skills: `[splits, …]`.
    func mixing(_ place: TensorPlace, _ reader: OperandReader) -> [Float] {
        let shares = reader.floatsOfTask(logits).map { 1 / (1 + expf(-$0)) }
        let splitCount = shares.count / skillCount
        let numbers = reader.floats(place)
        let size = numbers.count / shares.count
        return (0..<splitCount).flatMap { split in
            let own = Array(shares[split * skillCount..<(split + 1) * skillCount])
            let total = own.reduce(0, +) + Self.epsilon
            let start = split * skillCount * size
            return DenseAlgebra.product(
                .init(own.map { $0 / total }),
                .init(Array(numbers[start..<start + skillCount * size])), m: 1, n: size,
                k: skillCount)
        }
    }

    /// As peft has it.
    private static let epsilon: Float = 1e-12
}
