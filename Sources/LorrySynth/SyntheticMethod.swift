import Foundation

/// A PEFT method whose files can be made with random numbers.
public enum SyntheticMethod: String, Sendable, CaseIterable {
    case lora, dora, adalora, loha, lokr, vera, delora, hra, oft, road, ia3
    case lnTuning = "ln_tuning"
    case promptTuning = "prompt_tuning"
    case prefixTuning = "prefix_tuning"

    /// Virtual tokens of prompts and prefixes.
    private static let virtualTokenCount = 16
    /// Inputs that OFT rotates together.
    private static let blockSize = 32

    var peftType: String {
        switch self {
        case .lora, .dora: "LORA"
        default: rawValue.uppercased()
        }
    }

    /// One linear layer of an adapter.
    struct Site {
        /// What comes before the tensors' names.
        let path: String
        let outFeatures: Int
        let inFeatures: Int
        let rank: Int
        /// The standard deviation of the base's weights.
        let weightDeviation: Double
        let type: SynthElementType

        func tensor(
            _ name: String, _ shape: [Int], _ fill: TensorSpec.Fill
        ) -> TensorSpec {
            TensorSpec(name: path + name, shape: shape, type: type, fill: fill)
        }
    }

    /// The tensors of a linear layer, such that their delta is about a third as large as what the
    /// base computes.
    func tensors(at site: Site) -> [TensorSpec] {
        let (outFeatures, inFeatures, rank) = (site.outFeatures, site.inFeatures, site.rank)
        // For inputs of variance 1 the base gives this deviation.
        let output = site.weightDeviation * Double(inFeatures).squareRoot()
        // A as peft begins it: uniform with variance 1 / (3 · inFeatures), so that A x has variance
        // 1/3.
        let down = TensorSpec.Fill.uniform(bound: 1 / Float(inFeatures).squareRoot())
        let up = TensorSpec.Fill.normal(
            deviation: Float(output / (2 * (3 * Double(rank)).squareRoot())))
        let lora = [
            site.tensor("lora_A.weight", [rank, inFeatures], down),
            site.tensor("lora_B.weight", [outFeatures, rank], up),
        ]
        let near1 = TensorSpec.Fill.around(1, deviation: 0.2)
        switch self {
        case .lora: return lora
        case .dora:
            return lora + [
                site.tensor(
                    "lora_magnitude_vector", [outFeatures],
                    .around(Float(output), deviation: Float(output / 5)))
            ]
        case .adalora:
            return [
                site.tensor("lora_A", [rank, inFeatures], down),
                site.tensor("lora_B", [outFeatures, rank], up),
                site.tensor("lora_E", [rank, 1], near1),
            ]
        case .loha:
            let side = Float(
                (output / (3 * Double(inFeatures).squareRoot() * 2 * Double(rank)))
                    .squareRoot())
            func factor(_ name: String, _ shape: [Int], _ size: Float) -> TensorSpec {
                site.tensor(name, shape, .normal(deviation: size))
            }
            return [
                factor("hada_w1_a", [outFeatures, rank], side),
                factor("hada_w1_b", [rank, inFeatures], 1),
                factor("hada_w2_a", [outFeatures, rank], side),
                factor("hada_w2_b", [rank, inFeatures], 1),
            ]
        case .lokr:
            let (a, d) = Self.factors(outFeatures)
            let (c, e) = Self.factors(inFeatures)
            let size = Float((site.weightDeviation / 6).squareRoot())
            return [
                site.tensor("lokr_w1", [a, c], .normal(deviation: size)),
                site.tensor("lokr_w2", [d, e], .normal(deviation: size)),
            ]
        case .vera:
            return [
                site.tensor("vera_lambda_b", [outFeatures], .normal(deviation: Float(output))),
                site.tensor("vera_lambda_d", [rank], near1),
            ]
        case .delora:
            return [
                site.tensor("delora_A", [rank, inFeatures], down),
                site.tensor("delora_B", [outFeatures, rank], up),
                site.tensor("delora_lambda", [1], .constant(4)),
                site.tensor(
                    "delora_w_norm", [inFeatures],
                    .constant(Float(site.weightDeviation * Double(outFeatures).squareRoot()))),
            ]
        case .hra: return [site.tensor("hra_u", [inFeatures, rank], .normal(deviation: 1))]
        case .oft:
            let k = Self.blockSize
            return [
                site.tensor(
                    "oft_R.weight", [inFeatures / k, k * (k - 1) / 2], .normal(deviation: 0.02))
            ]
        case .road:
            return [
                site.tensor("road_theta", [outFeatures / 2], .normal(deviation: 0.3)),
                site.tensor("road_alpha", [outFeatures / 2], near1),
            ]
        case .ia3: return [site.tensor("ia3_l", [outFeatures, 1], near1)]
        case .lnTuning, .promptTuning, .prefixTuning: return []
        }
    }

    /// Two factors of a number, as near to each other as they get, the smaller first.
    private static func factors(_ number: Int) -> (Int, Int) {
        var small = Int(Double(number).squareRoot())
        while number % small != 0 { small -= 1 }
        return (small, number / small)
    }

    /// Tensors that belong to no linear layer.
    func sharedTensors(
        _ shape: LayerShape, sites: [Site], rank: Int, type: SynthElementType
    ) -> [TensorSpec] {
        func tensor(_ name: String, _ shape: [Int], _ fill: TensorSpec.Fill) -> TensorSpec {
            TensorSpec(name: name, shape: shape, type: type, fill: fill)
        }
        switch self {
        case .vera:
            let inFeatures = sites.map(\.inFeatures).max() ?? 1
            let outFeatures = sites.map(\.outFeatures).max() ?? 1
            return [
                tensor(
                    "base_model.vera_A", [rank, inFeatures],
                    .uniform(bound: (6 / Float(inFeatures)).squareRoot())),
                tensor(
                    "base_model.vera_B", [outFeatures, rank],
                    .uniform(bound: 1 / Float(rank).squareRoot())),
            ]
        case .lnTuning:
            let paths =
                (0..<shape.layerCount).flatMap { layer in
                    ["input_layernorm", "post_attention_layernorm"].map {
                        "model.layers.\(layer).\($0)"
                    }
                } + ["model.norm"]
            return paths.map {
                tensor(
                    "base_model.model.\($0).ln_tuning_layers.weight", [shape.hiddenSize],
                    .around(1, deviation: 0.2))
            }
        case .promptTuning:
            return [
                tensor(
                    "prompt_embeddings", [Self.virtualTokenCount, shape.hiddenSize],
                    .normal(deviation: 0.05))
            ]
        case .prefixTuning:
            let width = shape.layerCount * 2 * shape.kvHeadCount * shape.headDim
            return [
                tensor(
                    "prompt_embeddings", [Self.virtualTokenCount, width], .normal(deviation: 0.3))
            ]
        default: return []
        }
    }

    /// The fields of the configuration that the method has beside those that all have.
    func fields(_ shape: LayerShape, rank: Int) -> [String: Any] {
        switch self {
        case .lora: ["r": rank, "lora_alpha": 2 * rank]
        case .dora: ["r": rank, "lora_alpha": 2 * rank, "use_dora": true]
        case .adalora: ["init_r": rank, "target_r": rank, "lora_alpha": 2 * rank]
        case .loha: ["r": rank, "alpha": 2 * rank]
        case .lokr: ["r": rank, "alpha": rank, "decompose_factor": -1]
        case .vera: ["r": rank, "projection_prng_key": 0, "save_projection": true]
        case .delora: ["r": rank, "delora_lambda": 4]
        case .hra: ["r": rank, "apply_GS": false]
        case .oft: ["oft_block_size": Self.blockSize, "r": 0, "use_cayley_neumann": true]
        case .road: ["variant": "road_1", "group_size": 64]
        case .ia3: ["feedforward_modules": [String]()]
        case .lnTuning: [:]
        case .promptTuning, .prefixTuning:
            ["num_virtual_tokens": Self.virtualTokenCount, "num_layers": shape.layerCount]
        }
    }

    /// Whether the configuration names target modules.
    var hasTargets: Bool { self != .promptTuning && self != .prefixTuning }
}
