import Foundation
import LorryTensor

/// RoAd (arXiv 2409.00119): rotates and scales pairs of outputs. With `z = W x + b` in groups of
/// `group_size`, each of two halves `(z₁, z₂)`: `y = C ⊙ z + S ⊙ (-z₂, z₁)`, where `C = α cos θ` and
/// `S = α sin θ`. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.road_theta, road_alpha
///         road_1  [outFeatures / 2]   the halves of a group share angles and scales
///         road_2  [outFeatures]
///         road_4  [2 outFeatures]     for each group those of C, then those of S
struct RoAdMethod: PEFTMethod {
    let peftTypes = ["ROAD"]

    private enum Variant: String {
        case one = "road_1"
        case two = "road_2"
        case four = "road_4"

        func count(outFeatures: Int) -> Int {
            switch self {
            case .one: outFeatures / 2
            case .two: outFeatures
            case .four: 2 * outFeatures
            }
        }

        /// Where the numbers for an output's C and S lie.
        func places(of output: Int, groupSize: Int) -> (cosine: Int, sine: Int) {
            let (group, place) = output.quotientAndRemainder(dividingBy: groupSize)
            switch self {
            case .one:
                let index = group * (groupSize / 2) + place % (groupSize / 2)
                return (index, index)
            case .two: return (output, output)
            case .four:
                let index = group * 2 * groupSize + place
                return (index, index + groupSize)
            }
        }
    }

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: ["variant", "group_size", "init_weights"])
        guard let variant = Variant(rawValue: try source.string("variant") ?? "road_1") else {
            throw source.bad("variant", "is not one of road_1, road_2, road_4")
        }
        let groupSize = try source.integer("group_size") ?? 64
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.targets(having: "road_theta")
        try tensors.requireLayers(targets)
        for module in targets {
            let outFeatures = builder.dimensions(of: module).outFeatures
            guard groupSize % 2 == 0, outFeatures % groupSize == 0 else {
                throw source.bad(
                    "group_size", "\(groupSize) does not divide \(module.path) into pairs")
            }
            let shape = [variant.count(outFeatures: outFeatures)]
            let theta = TensorPlace(try tensors.require(module, "road_theta", shape: shape))
            let alpha = TensorPlace(try tensors.require(module, "road_alpha", shape: shape))
            let own = Operand.derived(count: outFeatures) { reader in
                let (theta, alpha) = (reader.floats(theta), reader.floats(alpha))
                return (0..<outFeatures).map {
                    let index = variant.places(of: $0, groupSize: groupSize).cosine
                    return alpha[index] * cos(theta[index])
                }
            }
            let other = Operand.derived(count: outFeatures) { reader in
                let (theta, alpha) = (reader.floats(theta), reader.floats(alpha))
                return (0..<outFeatures).map {
                    let index = variant.places(of: $0, groupSize: groupSize).sine
                    let value = alpha[index] * sin(theta[index])
                    return $0 % groupSize < groupSize / 2 ? -value : value
                }
            }
            builder.setOutputMix(at: module, groupSize: groupSize, own: own, other: other)
        }
        try tensors.requireEmpty()
        return "road"
    }
}
