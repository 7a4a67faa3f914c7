import Foundation
import LorryModel
import Testing

/// Bottlenecks whose function is linear, which can be folded into the layer before them. How the
/// functions and the other inputs do was held against AdapterHub's library.
@Suite struct BottleneckMethodTests {
    private static let bottleneck = 3
    private static let name = "ours"

    private func crafted(_ options: [String: Any] = [:]) -> CraftedMethod {
        var method = CraftedMethod("")
        method.configuration = [
            "config": [
                "mh_adapter": false, "output_adapter": true, "non_linearity": "linear",
                "reduction_factor": 16, "original_ln_before": false, "original_ln_after": true,
                "residual_before_ln": true, "is_parallel": false, "scaling": 0.5,
                "leave_out": [Int](), "use_gating": false, "phm_layer": false, "phm_dim": 4,
            ].merging(options) { $1 },
            "hidden_size": TinyModel.hiddenSize, "model_type": "llama", "name": Self.name,
            "model_class": "LlamaForCausalLM", "version": "adapters.1.3.0",
        ]
        let width = TinyModel.hiddenSize
        for layer in 0..<TinyModel.layerCount {
            let path = Self.path(layer)
            method.file.add(path + "adapter_down.0.weight", [Self.bottleneck, width])
            method.file.add(path + "adapter_down.0.bias", [Self.bottleneck])
            method.file.add(path + "adapter_up.weight", [width, Self.bottleneck])
            method.file.add(path + "adapter_up.bias", [width])
            switch options["scaling"] as? String {
            case "learned": method.file.add(path + "scaling", [1])
            case "channel": method.file.add(path + "scaling", [width])
            default: break
            }
        }
        return method
    }

    private static func path(_ layer: Int) -> String {
        "model.layers.\(layer).output_adapters.adapters.\(name)."
    }

    @Test(arguments: ["", "learned", "channel"]) func addsToTheOutput(scaling: String) throws {
        let method = crafted(scaling.isEmpty ? [:] : ["scaling": scaling])
        let width = TinyModel.hiddenSize
        try method.check(scaling) { module in
            guard module.path.hasSuffix("mlp.down_proj") else { return }
            let layer = Int(module.path.split(separator: ".")[2]) ?? 0
            func floats(_ name: String) -> [Float] {
                method.file.tensors[Self.path(layer) + name]?.floats ?? []
            }
            let scales = scaling.isEmpty ? [0.5] : floats("scaling")
            let up = floats("adapter_up.weight").enumerated().map {
                $1 * scales[$0 / Self.bottleneck % scales.count]
            }
            let product = plainProduct(
                up, floats("adapter_down.0.weight"), width, width, Self.bottleneck)
            let weight = plainProduct(product, module.weight, width, module.into, width)
            let inner = plainProduct(
                floats("adapter_down.0.weight"), module.bias, Self.bottleneck, 1, width)
            let bias = plainProduct(
                up, zip(inner, floats("adapter_down.0.bias")).map { $0 + $1 }, width, 1,
                Self.bottleneck)
            let last = floats("adapter_up.bias").enumerated().map {
                $1 * scales[$0 % scales.count]
            }
            module.weight = zip(module.weight, weight).map { $0 + $1 }
            module.bias = module.bias.indices.map { module.bias[$0] + bias[$0] + last[$0] }
        }
    }

    @Test func describesItself() throws {
        let description = try crafted(["is_parallel": true, "non_linearity": "relu"]).inspect()
        #expect(description.method == "parallel_bottleneck")
        #expect(description.rank == Self.bottleneck && description.targets == ["down_proj"])
    }

    @Test func refusesWhatItDoesNotDo() throws {
        for (field, value) in [
            ("use_gating", true), ("ln_before", true), ("ln_after", true), ("phm_layer", true),
            ("cross_adapter", true), ("inv_adapter", "nice"), ("architecture", "lora"),
            ("non_linearity", "laplace"), ("residual_before_ln", "post_add"),
            ("original_ln_after", false), ("scaling", "other"), ("surprise", 1),
        ] as [(String, Any)] {
            #expect(crafted([field: value]).refusal.contains(field), "\(field)")
        }
        let plain = crafted()
        try plain.inspect()
        for name in plain.file.tensors.keys {
            var changed = plain
            changed.file.tensors[name]?.shape.append(1)
            #expect(changed.refusal.contains(name))
            changed.file.tensors[name] = nil
            #expect(changed.refusal.contains(name))
        }
        #expect(crafted(["leave_out": [0]]).refusal.contains("layers.0"))
        for layer in [-1, TinyModel.layerCount] {
            #expect(crafted(["leave_out": [layer]]).refusal.contains("leave_out: has \(layer)"))
        }
        var other = plain
        other.configuration["model_type"] = "gpt2"
        #expect(other.refusal.contains("model_type"))
    }
}
