import Foundation
import LorryModel
import Testing

@Suite struct LoRAMethodTests {
    private func refusal(
        _ adapter: CraftedAdapter, _ changes: [String: Any?] = [:]
    ) -> AdapterError? {
        #expect(throws: AdapterError.self) { try adapter.inspect(changes) }
    }

    private static let queryA = "\(CraftedAdapter.prefix)0.self_attn.q_proj.lora_A.weight"
    private static let queryB = "\(CraftedAdapter.prefix)0.self_attn.q_proj.lora_B.weight"

    @Test func takesThePlainOne() throws {
        let found = try CraftedAdapter().inspect()
        #expect(found.method == "lora")
        #expect(found.rank == 2)
        #expect(found.parameterCount == 2 * (2 * 16 + 16 * 2 + 2 * 16 + 8 * 2))
        var stabilized = CraftedAdapter()
        stabilized.set("use_rslora", true)
        #expect(try stabilized.inspect().method == "rslora")
    }

    @Test func everyTensorBelongsToATarget() throws {
        var stray = CraftedAdapter()
        stray.file.add("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", [2, 16])
        #expect(refusal(stray)?.message.contains("layers.9") == true)

        var unselected = CraftedAdapter()
        unselected.add("0.self_attn.k_proj", rank: 2)
        #expect(refusal(unselected)?.message.contains("k_proj") == true)

        var missing = CraftedAdapter()
        missing.file.tensors = missing.file.tensors.filter {
            !$0.key.contains("1.self_attn.v_proj")
        }
        let error = refusal(missing)
        #expect(error?.message.contains("target_modules") == true)
        #expect(error?.message.contains("layers.1.self_attn.v_proj") == true)

        var half = CraftedAdapter()
        half.file.tensors[Self.queryB] = nil
        #expect(refusal(half)?.message.contains("q_proj has no lora_B") == true)
        half = CraftedAdapter()
        half.file.tensors[Self.queryA] = nil
        #expect(refusal(half)?.message.contains("target_modules") == true)

        var empty = CraftedAdapter()
        empty.file.tensors = [:]
        #expect(refusal(empty)?.message.contains("has no lora_A of any module") == true)
    }

    @Test func shapesAndRanksAreChecked() {
        var wide = CraftedAdapter()
        wide.file.add(Self.queryA, [2, 17])
        #expect(refusal(wide)?.message.contains("[2, 17]") == true)
        var flat = CraftedAdapter()
        flat.file.add(Self.queryA, [32])
        #expect(refusal(flat)?.message.contains(Self.queryA) == true)
        var other = CraftedAdapter()
        other.file.add(Self.queryB, [16, 3])
        #expect(refusal(other)?.message.contains("expected [16, 2]") == true)
        var rank = CraftedAdapter()
        rank.add("0.self_attn.q_proj", rank: 3)
        #expect(refusal(rank)?.message.contains("rank 3") == true)
        var none = CraftedAdapter()
        none.add("0.self_attn.q_proj", rank: 0)
        #expect(refusal(none)?.message.contains("[0, 16]") == true)
        let huge = CraftedAdapter(rank: 513)
        #expect(refusal(huge)?.message.contains("rank 513") == true)
        var integers = CraftedAdapter()
        integers.file.tensors[Self.queryA]?.dtype = "I64"
        #expect(refusal(integers)?.message.contains("I64") == true)
    }

    @Test func deltaBiasesNeedTheirOption() throws {
        let name = "\(CraftedAdapter.prefix)0.self_attn.q_proj.lora_B.bias"
        var adapter = CraftedAdapter()
        adapter.file.add(name, [16])
        #expect(refusal(adapter)?.message.contains("lora_bias") == true)
        adapter.set("lora_bias", true)
        #expect(refusal(adapter)?.message.contains("has no lora_B.bias") == true)
        for module in ["0.self_attn.v_proj", "1.self_attn.v_proj"] {
            adapter.file.add("\(CraftedAdapter.prefix)\(module).lora_B.bias", [8])
        }
        adapter.file.add("\(CraftedAdapter.prefix)1.self_attn.q_proj.lora_B.bias", [16])
        #expect(try adapter.inspect().parameterCount == 2 * (64 + 48) + 48)
        adapter.file.add(name, [8])
        #expect(refusal(adapter)?.message.contains("expected [16]") == true)
    }

    @Test func replacedBiasesNeedTheirOptionAndABase() throws {
        let biased: [String: Any?] = ["attention_bias": true, "mlp_bias": true]
        let adapted = "\(CraftedAdapter.prefix)0.self_attn.q_proj.base_layer.bias"
        let other = "\(CraftedAdapter.prefix)0.mlp.up_proj.bias"
        var adapter = CraftedAdapter()
        adapter.file.add(adapted, [16])
        #expect(refusal(adapter, biased)?.message.contains("bias does not say so") == true)
        adapter.set("bias", "lora_only")
        #expect(try adapter.inspect(biased).parameterCount == 2 * (64 + 48) + 16)
        #expect(refusal(adapter)?.message.contains("base does not have") == true)
        adapter.file.add(other, [24])
        #expect(refusal(adapter, biased)?.message.contains(other) == true)
        adapter.set("bias", "all")
        #expect(try adapter.inspect(biased).targets == ["q_proj", "up_proj", "v_proj"])
        adapter.file.tensors[other] = nil
        adapter.file.add("\(CraftedAdapter.prefix)0.self_attn.v_proj.bias", [8])
        #expect(refusal(adapter, biased)?.message.contains("does not fit") == true)
        adapter.set("bias", "some")
        #expect(refusal(adapter, biased)?.message.contains("bias") == true)
    }

    @Test(arguments: ["pissa_niter_4", "loftq", "corda", "lora_ga"])
    func initializationsThatCannotBeRepeatedAreRefused(_ name: String) {
        var adapter = CraftedAdapter()
        adapter.set("init_lora_weights", name)
        let error = refusal(adapter)
        #expect(error?.kind == .unsupported)
        #expect(error?.message.contains("'\(name)'") == true)
    }

    @Test func plainInitializationsAreTaken() throws {
        for value: Any in [true, false, "gaussian", "eva", NSNull()] as [Any] {
            var adapter = CraftedAdapter()
            adapter.set("init_lora_weights", value)
            #expect(try adapter.inspect().rank == 2)
        }
        var odd = CraftedAdapter()
        odd.set("init_lora_weights", 3)
        #expect(refusal(odd)?.kind == .invalid)
    }

    @Test func noOptionIsIgnored() throws {
        var unknown = CraftedAdapter()
        for neutral: Any in [NSNull(), false, [String](), [String: Int](), ""] as [Any] {
            unknown.set("a_new_option", neutral)
            #expect(try unknown.inspect().rank == 2)
        }
        for value: Any in [true, 1, "x", [1], ["a": 1]] as [Any] {
            unknown.set("a_new_option", value)
            let error = refusal(unknown)
            #expect(error?.kind == .unsupported)
            #expect(error?.message.contains("a_new_option") == true)
        }
        let cases: [(String, Any)] = [
            ("layer_replication", [[0, 1]]), ("target_parameters", ["x"]), ("use_qalora", true),
            ("arrow_config", ["x": 1]), ("task_type", "SEQ_CLS"),
        ]
        for (field, value) in cases {
            var adapter = CraftedAdapter()
            adapter.set(field, value)
            #expect(refusal(adapter)?.kind == .unsupported)
            #expect(refusal(adapter)?.message.contains(field) == true)
        }
        let malformed: [(String, Any)] = [
            ("modules_to_save", ["lm_head"]), ("modules_to_save", 3),
            ("use_bdlora", ["nblocks": 0]),
            ("trainable_token_indices", [-1]), ("alora_invocation_tokens", "x"),
            ("r", 0), ("r", -1), ("r", 2.5), ("r", "2"), ("lora_alpha", "4"), ("use_rslora", 1),
            ("rank_pattern", [1]), ("rank_pattern", ["q_proj": 0]), ("lora_alpha", 1e300),
            ("alpha_pattern", ["q_proj": "x"]), ("rank_pattern", ["(": 2]),
        ]
        for (field, value) in malformed {
            var adapter = CraftedAdapter()
            adapter.set(field, value)
            let error = refusal(adapter)
            #expect(error?.kind == .invalid)
            #expect(error?.message.contains(field) == true, "\(error?.message ?? "")")
        }
    }

    @Test func rankPatterns() throws {
        var adapter = CraftedAdapter()
        adapter.add("0.self_attn.q_proj", rank: 5)
        adapter.set("rank_pattern", ["layers.0.self_attn.q_proj": 5])
        #expect(try adapter.inspect().rank == 5)
        adapter.set("rank_pattern", [".*.0.*q_proj": 5])
        #expect(try adapter.inspect().rank == 5)
        adapter.set("rank_pattern", ["q_proj": 5])
        #expect(refusal(adapter)?.message.contains("rank 2") == true, "layer 1 must have it too")
        // A whole number that no Int holds must not trap.
        adapter.set("rank_pattern", ["q_proj": 1e300])
        #expect(refusal(adapter)?.message.contains("1e+300") == true)
    }
}
