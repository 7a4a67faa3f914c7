import Foundation
import LorryModel
import Testing

@Suite struct ModuleTargetsTests {
    private func targets(_ adapter: CraftedAdapter) throws -> [String] {
        try adapter.inspect().targets
    }

    private func refusal(_ adapter: CraftedAdapter) -> AdapterError? {
        #expect(throws: AdapterError.self) { try adapter.inspect() }
    }

    private static let all = [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]

    @Test func listsPatternsAndAllLinear() throws {
        var adapter = CraftedAdapter(modules: ["q_proj"])
        for value: Any in [
            ["q_proj"], ["self_attn.q_proj"], #".*\.q_proj"#, NSNull(),
            ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"],
        ] as [Any] {
            adapter.set("target_modules", value)
            #expect(try targets(adapter) == ["q_proj"])
        }
        for value: Any in ["q_proj", #".*\.q"#, ["_proj"], ["k_proj"], [], 3, [3], "(", "["]
            as [Any]
        {
            adapter.set("target_modules", value)
            #expect(refusal(adapter)?.kind == .invalid)
        }
        var everything = CraftedAdapter(modules: Self.all)
        for name in ["all-linear", "ALL-linear"] {
            everything.set("target_modules", name)
            #expect(try targets(everything) == Self.all)
        }
    }

    /// They can be targets, so that they must have tensors where they are.
    @Test func embeddingsAndHeadCanBeTargets() {
        for value: Any in [["lm_head", "q_proj"], ["embed_tokens", "q_proj"], ".*"] as [Any] {
            var adapter = CraftedAdapter(modules: ["q_proj"])
            adapter.set("target_modules", value)
            #expect(refusal(adapter)?.message.contains("has no tensors") == true)
        }
    }

    @Test func exclusions() throws {
        var adapter = CraftedAdapter(modules: ["q_proj"])
        adapter.set("target_modules", ["q_proj", "v_proj"])
        for value: Any in [["v_proj"], #".*v_proj"#] as [Any] {
            adapter.set("exclude_modules", value)
            #expect(try targets(adapter) == ["q_proj"])
        }
        adapter.set("exclude_modules", ["q_proj", "v_proj"])
        #expect(refusal(adapter)?.message.contains("q_proj") == true)
    }

    @Test func layersToTransform() throws {
        var adapter = CraftedAdapter(layers: 1..<2)
        for value: Any in [1, [1]] as [Any] {
            adapter.set("layers_to_transform", value)
            for pattern: Any? in [nil, "layers", ["layers"], ["h", "layers"], ""] as [Any?] {
                adapter.set("layers_pattern", pattern)
                #expect(try targets(adapter) == ["q_proj", "v_proj"])
            }
        }
        adapter.set("layers_pattern", nil)
        for value: Any in [0, [0, 1], 2, -1, "1", [1.5]] as [Any] {
            adapter.set("layers_to_transform", value)
            #expect(refusal(adapter)?.kind == .invalid)
        }
        adapter.set("layers_to_transform", 1)
        adapter.set("layers_pattern", "h")
        #expect(refusal(adapter)?.kind == .invalid, "no module lies in such a layer")
    }

    @Test func catastrophicPatternsEndWithAnError() {
        for pattern in ["(.*)*(.*)*(.*)*x", "(([a-z._0-9])+)+[X-Z]", #"(\w+\.?)+\d+z"#] {
            var adapter = CraftedAdapter()
            adapter.set("target_modules", pattern)
            #expect(refusal(adapter)?.kind == .invalid)
            adapter.set("target_modules", ["q_proj", "v_proj"])
            adapter.set("rank_pattern", [pattern: 2])
            // An error or no match, but soon.
            _ = try? adapter.inspect()
        }
    }

    @Test func patternsMatchAsInPython() throws {
        let start = try ModulePattern("a+", anchoring: .start)
        #expect(try start.matches("aab"))
        #expect(try !start.matches("baa"))
        let both = try ModulePattern("a+|ab", anchoring: .both)
        #expect(try both.matches("ab"))
        #expect(try !both.matches("aab"))
        let groups = try ModulePattern(#"(x)?\.(\d+)"#, anchoring: .start)
        #expect(try groups.captures(".17") == [".17", nil, "17"])
        #expect(throws: ModulePattern.Failure.self) { try ModulePattern("(", anchoring: .start) }
    }
}
