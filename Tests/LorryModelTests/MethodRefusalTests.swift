import Foundation
import LorryModel
import Testing

/// What all methods whose deltas follow from other numbers than two factors have in common: each
/// tensor is needed and checked, and no option is passed over.
@Suite struct MethodRefusalTests {
    private static var methods: [CraftedMethod] {
        [
            CraftedMethod("SHIRA", ["r": 2]).adding("shira_weight") { _, _ in [5] }
                .adding("shira_indices", dtype: "I64") { _, _ in [2, 5] },
            CraftedMethod("SUPERTUNING", ["r": 3]).adding("supertuning_values") { _, _ in [7] }
                .adding("supertuning_lora_A.weight") { [3, $1] }
                .adding("supertuning_lora_B.weight") { out, _ in [out, 3] },
            CraftedMethod("C3A").adding("c3a_kernel") { [$0 / 8, $1 / 8, 8] },
            CraftedMethod("FOURIERFT").adding("fourierft_spectrum") { _, _ in [5] },
            CraftedMethod("WAVEFT").adding("waveft_spectrum") { _, _ in [5] },
            CraftedMethod("HIRA").adding("hira_A") { [3, $1] }.adding("hira_B") { out, _ in
                [out, 3]
            },
            CraftedMethod("OSF").adding("osf_svd_params.U_low") { out, _ in [out, 2] }
                .adding("osf_svd_params.S_low") { _, _ in [2] }
                .adding("osf_svd_params.V_low") { [2, $1] },
            CraftedMethod("GLORA").adding("glora_A.X") { out, _ in [out, 1] }
                .adding("glora_B.X") { out, _ in [out, 1] }.adding("glora_C.zeros") { [$1, 1] }
                .adding("glora_D.zeros") { out, _ in [out] }
                .adding("glora_E.zeros") { out, _ in [out] },
            CraftedMethod("PEANUT", ["depth": 1]).adding("peanut_A.weight") { out, _ in [3, out] }
                .adding("peanut_B.weight") { out, _ in [out, 3] }
                .adding("peanut_encoders.0.weight") { _, _ in [3, 3] }
                .adding("peanut_decoders.0.weight") { _, _ in [3, 3] },
            CraftedMethod("DEFT").adding("deft_P") { out, _ in [out, 3] }.adding("deft_R") {
                [3, $1]
            },
            CraftedMethod("HRA").adding("hra_u") { [$1, 3] },
            CraftedMethod("OFT", ["oft_block_size": 4]).adding("oft_R.weight") { [$1 / 4, 6] },
            CraftedMethod("BOFT").adding("boft_R") { [1, $1 / 4, 4, 4] }
                .adding("boft_s") { out, _ in [out, 1] },
            CraftedMethod("ROAD", ["group_size": 8]).adding("road_theta") { out, _ in [out / 2] }
                .adding("road_alpha") { out, _ in [out / 2] },
        ]
    }

    @Test func optionsThatAreNotUnderstood() throws {
        for method in Self.methods {
            #expect(method.refusal == "")
            var changed = method
            changed.configuration["an_option"] = 3
            #expect(changed.refusal.contains("an_option"))
        }
    }

    @Test func everyTensorIsNeeded() {
        for method in Self.methods {
            for name in method.file.tensors.keys where name.contains("layers.1.") {
                var changed = method
                changed.file.tensors[name] = nil
                #expect(changed.refusal != "", "without \(name)")
            }
            var stray = method
            stray.file.add("base_model.model.model.layers.0.self_attn.q_proj.another", [2])
            #expect(stray.refusal.contains("another"))
        }
    }

    @Test func shapesAreChecked() {
        for method in Self.methods {
            for (name, tensor) in method.file.tensors where name.contains("layers.1.") {
                for axis in tensor.shape.indices {
                    var shape = tensor.shape
                    shape[axis] += 1
                    var changed = method
                    changed.file.add(name, shape, dtype: tensor.dtype)
                    guard changed.refusal == "" else { continue }
                    #expect(Self.isFree(name, axis), "\(name) as \(shape)")
                }
                var deeper = method
                deeper.file.add(name, tensor.shape + [1], dtype: tensor.dtype)
                #expect(deeper.refusal.contains(name), "\(name) with another axis")
            }
        }
    }

    /// Counts that are an adapter's own.
    private static func isFree(_ name: String, _ axis: Int) -> Bool {
        ["supertuning_values", "fourierft_spectrum", "waveft_spectrum"]
            .contains { name.hasSuffix($0) } || name.hasSuffix("hra_u") && axis == 1
    }

    @Test func optionsWithoutAMeaning() {
        func refusal(_ type: String, _ fields: [String: Any]) -> String {
            var method = Self.methods.first { $0.configuration["peft_type"] as? String == type }
            for (field, value) in fields { method?.configuration[field] = value }
            return method?.refusal ?? "no such method"
        }
        #expect(refusal("OFT", ["use_cayley_neumann": true]) == "")
        #expect(
            refusal("OFT", ["use_cayley_neumann": true, "peft_version": "0.17.1"])
                .contains("0.18"))
        #expect(refusal("OFT", ["peft_version": "0.17.1"]) == "")
        #expect(refusal("WAVEFT", ["wavelet_family": "db11"]).contains("db11"))
        #expect(refusal("WAVEFT", ["wavelet_family": "db10"]) == "")
        #expect(refusal("WAVEFT", ["wavelet_family": "bior2.2", "use_idwt": false]) == "")
        #expect(refusal("ROAD", ["variant": "road_3"]).contains("variant"))
        #expect(refusal("ROAD", ["group_size": 6]).contains("group_size"))
        #expect(refusal("DEFT", ["decomposition_method": "svd"]).contains("decomposition"))
        #expect(refusal("DEFT", ["para": true]).contains("deft_R"))
        #expect(refusal("PEANUT", ["act_fn": "xielu"]).contains("xielu"))
        #expect(refusal("PEANUT", ["depth": 2]).contains("peanut_encoders.1"))
        #expect(refusal("BOFT", ["boft_n_butterfly_factor": 2]).contains("boft_R"))
        #expect(refusal("FOURIERFT", ["bias": "lora_only"]).contains("bias"))
        #expect(refusal("FOURIERFT", ["bias": "fourier_only"]) == "")
    }
}
