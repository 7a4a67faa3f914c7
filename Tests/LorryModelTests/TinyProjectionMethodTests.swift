import Foundation
import LorryModel
import Testing

@Suite struct TinyLoRAMethodTests {
    private func crafted(tying: Double, groups: Int) -> FoldedAdapter {
        var folded = FoldedAdapter(
            "TINYLORA", ["q_proj", "v_proj", "down_proj"],
            ["r": 2, "u": 3, "weight_tying": tying])
        folded.add("tinylora_A") { _, into in [2, into] }
        folded.add("tinylora_B") { out, _ in [out, 2] }
        folded.add("tinylora_P") { _, _ in [3, 2, 2] }
        for group in 0..<groups {
            folded.adapter.file.add("base_model.tinylora_v.\(group)", [3])
        }
        return folded
    }

    /// Six modules in six groups, in two, and in four, of which the last takes three.
    private static let groups: [(tying: Double, groups: [Int])] = [
        (0, [0, 1, 2, 3, 4, 5]), (0.7, [0, 0, 0, 1, 1, 1]), (0.4, [0, 1, 2, 3, 3, 3]),
        (1, [0, 0, 0, 0, 0, 0]),
    ]

    @Test(arguments: Self.groups) func modulesShareVectors(
        tying: Double, groups: [Int]
    ) throws {
        let folded = crafted(tying: tying, groups: (groups.max() ?? 0) + 1)
        try folded.check("tying \(tying)") { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            let group = groups[folded.paths.firstIndex(of: path) ?? 0]
            let middle = plainProduct(
                folded.shared("tinylora_v.\(group)"), folded.floats(path, "tinylora_P"), 1, 4, 3)
            let up = plainProduct(folded.floats(path, "tinylora_B"), middle, out, 2, 2)
            return plainProduct(up, folded.floats(path, "tinylora_A"), out, into, 2)
        }
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try crafted(tying: 0, groups: 6).checkRefusals(optional: ["tinylora_P"])
        var other = crafted(tying: 0, groups: 6)
        other.adapter.set("weight_tying", 2)
        #expect(throws: AdapterError.self) { try other.adapter.inspect() }
    }
}

@Suite struct UniLoRAMethodTests {
    @Test func needsThetaAlone() throws {
        var drawn = FoldedAdapter("UNILORA", ["q_proj"], ["r": 2, "theta_d_length": 10])
        drawn.adapter.file.add("base_model.unilora_theta_d", [10])
        _ = try drawn.adapter.inspect()
        drawn.adapter.set("theta_d_length", 11)
        let error = #expect(throws: AdapterError.self) { try drawn.adapter.inspect() }
        #expect(error?.message.contains("theta_d_length") == true)
        drawn.adapter.set("theta_d_length", 10)
        drawn.adapter.set("save_indices", true)
        #expect(throws: AdapterError.self) { try drawn.adapter.inspect() }
        drawn.adapter.set("save_indices", false)
        drawn.adapter.set("target_modules", nil)
        #expect(throws: AdapterError.self) { try drawn.adapter.inspect() }
    }
}

@Suite struct VectorMethodTests {
    @Test func biasesAreAdded() throws {
        var folded = FoldedAdapter("BEFT", ["q_proj", "down_proj"])
        folded.add("beft_bias") { out, _ in [1, out] }
        try folded.checkRefusals()
        #expect(try folded.adapter.inspect().method == "beft")
    }

    @Test func normsAreReplaced() throws {
        var folded = FoldedAdapter("LN_TUNING", ["input_layernorm", "norm"])
        let norms = ["model.layers.0.input_layernorm", "model.layers.1.input_layernorm"]
        for path in norms + ["model.norm"] {
            folded.adapter.file.add("base_model.model.\(path).ln_tuning_layers.weight", [16])
        }
        try folded.checkRefusals()
        folded.adapter.set("target_modules", ["input_layernorm", "norm", "q_proj"])
        let error = #expect(throws: AdapterError.self) { try folded.adapter.inspect() }
        #expect(error?.message.contains("q_proj") == true)
    }
}
