import Foundation
import LorryTensor

/// VB-LoRA (arXiv 2405.15179): LoRA without a scale, whose A and B consist of sub-vectors of length
/// v, each a mix of `topk` vectors of one bank by the softmax of their logits.
///
/// A is put together along its inputs, B along its outputs. Tensors, as peft 0.21 saves them; with
/// `save_only_topk_weights` indices and all weights but the last, which is the rest to 1, are there
/// instead of logits:
///
///     base_model.vblora_vector_bank  [num_vectors, v]
///     base_model.model.<module>.vblora_logits_A  [r, inFeatures / v, num_vectors]
///     base_model.model.<module>.vblora_logits_B  [outFeatures / v, r, num_vectors]
///     … vblora_logits_A_topk_indices  [r, inFeatures / v, topk]
///     … vblora_logits_A_topk_weights  [r, inFeatures / v, topk - 1]   (B likewise)
struct VBLoRAMethod: PEFTMethod {
    let peftTypes = ["VBLORA"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: [
            "bias", "fan_in_fan_out", "init_logits_std", "init_vector_bank_bound", "num_vectors",
            "r", "save_only_topk_weights", "topk", "vblora_dropout", "vector_length",
        ])
        let rank = try source.rank("r", default: 4)
        let bias = try SavedBiases(source, only: "vblora_only")
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let bank = try VectorBank(&tensors)
        let targets = try tensors.linearTargets(
            having: bank.hasLogits ? "vblora_logits_A" : "vblora_logits_A_topk_indices")
        for module in targets {
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            let length = bank.length
            guard outFeatures % length == 0, inFeatures % length == 0 else {
                throw source.bad("vector_length", "does not divide \(module.path)")
            }
            let down = try bank.mix(
                module, "vblora_logits_A", [rank, inFeatures / length], &tensors)
            let up = try bank.mix(
                module, "vblora_logits_B", [outFeatures / length, rank], &tensors)
            builder.addProduct(
                at: module, rank: rank, down: down,
                up: .derived(count: up.count) { reader throws(AdapterError) in
                    // [tile, rank, length] to [tile, length, rank].
                    let vectors = try reader.floats(up)
                    let size = rank * length
                    return stride(from: 0, to: vectors.count, by: size).flatMap {
                        transpose(Array(vectors[$0..<$0 + size]), rowCount: rank)
                    }
                })
        }
        try bias.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "vblora"
    }
}

/// VB-LoRA's vectors, and how sub-vectors come from them.
private struct VectorBank: Sendable {
    let length: Int
    let hasLogits: Bool
    private let count: Int
    private let chosen: Int
    private let place: TensorPlace

    init(_ tensors: inout AdapterTensors) throws(AdapterError) {
        let source = tensors.source
        count = try source.integer("num_vectors") ?? 256
        length = try source.integer("vector_length") ?? 256
        chosen = try source.integer("topk") ?? 2
        hasLogits = try !source.flag("save_only_topk_weights")
        guard chosen <= count else { throw source.bad("topk", "is above num_vectors") }
        place = TensorPlace(
            try tensors.require("base_model.vblora_vector_bank", shape: [count, length]))
    }

    /// The sub-vectors of a module, one after the other. `shape` by length.
    func mix(
        _ module: BaseModule, _ name: String, _ shape: [Int], _ tensors: inout AdapterTensors
    ) throws(AdapterError) -> Operand {
        let size = shape.reduce(length, *)
        if hasLogits {
            let logits = TensorPlace(try tensors.require(module, name, shape: shape + [count]))
            return .derived(count: size) { reader throws(AdapterError) in
                let (vectors, logits) = (reader.floats(place), reader.floats(logits))
                return stride(from: 0, to: logits.count, by: count).flatMap {
                    sum(vectors, mixture(logits[$0..<$0 + count]))
                }
            }
        }
        let indices = try tensors.requireIntegers(
            module, "\(name)_topk_indices", shape: shape + [chosen])
        // One vector alone has the weight 1: the tensor of weights is there, but empty.
        var weights: TensorPlace?
        if chosen > 1 {
            weights = TensorPlace(
                try tensors.require(module, "\(name)_topk_weights", shape: shape + [chosen - 1]))
        } else {
            _ = tensors.take(module, "\(name)_topk_weights")
        }
        let (indexPlace, weightPlace) = (TensorPlace(indices), weights)
        return .derived(count: size) { reader throws(AdapterError) in
            let (vectors, indices) = (reader.floats(place), reader.integers(indexPlace))
            let weights = weightPlace.map { reader.floats($0) } ?? []
            guard indices.allSatisfy({ (0..<count).contains($0) }) else {
                throw indexPlace.bad("has an index outside 0..<\(count)")
            }
            var result: [Float] = []
            result.reserveCapacity(size)
            for row in 0..<indices.count / chosen {
                let given = weights[row * (chosen - 1)..<(row + 1) * (chosen - 1)]
                let all = Array(given) + [1 - given.reduce(0, +)]
                result += sum(
                    vectors, Array(zip(indices[row * chosen..<(row + 1) * chosen], all)))
            }
            return result
        }
    }

    private typealias Part = (index: Int, weight: Float)

    /// The softmax of the largest logits.
    private func mixture(_ logits: ArraySlice<Float>) -> [Part] {
        var largest: [(index: Int, logit: Float)] = []
        for (index, logit) in logits.enumerated() {
            guard largest.count < chosen || logit > largest[chosen - 1].logit else { continue }
            let place = largest.firstIndex { $0.logit < logit } ?? largest.count
            largest.insert((index, logit), at: place)
            if largest.count > chosen { largest.removeLast() }
        }
        let exponentials = largest.map { exp($0.logit - largest[0].logit) }
        let total = exponentials.reduce(0, +)
        return zip(largest, exponentials).map { ($0.index, $1 / total) }
    }

    private func sum(_ vectors: [Float], _ parts: [Part]) -> [Float] {
        var result = [Float](repeating: 0, count: length)
        for part in parts {
            for index in 0..<length {
                result[index] += part.weight * vectors[part.index * length + index]
            }
        }
        return result
    }
}
