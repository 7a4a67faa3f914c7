import Foundation
import LorryModel
import Testing

@Suite struct LoHaMethodTests {
    private func crafted(rank: Int, _ fields: [String: Any] = [:]) -> FoldedAdapter {
        var folded = FoldedAdapter(
            "LOHA", ["q_proj", "v_proj", "down_proj"], ["r": rank, "alpha": 6])
        for (field, value) in fields { folded.adapter.set(field, value) }
        for number in 1...2 {
            folded.add("hada_w\(number)_a") { out, _ in [out, rank] }
            folded.add("hada_w\(number)_b") { _, into in [rank, into] }
        }
        return folded
    }

    private func check(_ folded: FoldedAdapter, rank: Int, alpha: (String) -> Float) throws {
        try folded.check("rank \(rank)") { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            let parts = (1...2).map { number in
                plainProduct(
                    folded.floats(path, "hada_w\(number)_a"),
                    folded.floats(path, "hada_w\(number)_b"), out, into, rank)
            }
            return zip(parts[0], parts[1]).map { $0 * $1 * alpha(path) / Float(rank) }
        }
    }

    /// The smaller rank has factors, the larger one a matrix.
    @Test(arguments: [2, 5]) func multipliesTwoProducts(rank: Int) throws {
        try check(crafted(rank: rank), rank: rank) { _ in 6 }
    }

    @Test func alphaMayHaveAPattern() throws {
        let folded = crafted(rank: 2, ["alpha_pattern": ["layers.1.*q_proj": 40]])
        try check(folded, rank: 2) { $0.contains("1.self_attn.q_proj") ? 40 : 6 }
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try crafted(rank: 2).checkRefusals()
        var other = crafted(rank: 2)
        other.adapter.set("r", 3)
        let error = #expect(throws: AdapterError.self) { try other.adapter.inspect() }
        #expect(error?.message.contains("rank 2") == true)
    }
}

@Suite struct LoKrMethodTests {
    /// w1 `[2, 4]` throughout, w2 what is left of the features.
    private func crafted(
        isWhole: (left: Bool, right: Bool), modules: [String] = ["q_proj", "v_proj", "down_proj"]
    ) -> FoldedAdapter {
        var folded = FoldedAdapter("LOKR", modules, ["r": 2, "alpha": 3, "decompose_both": true])
        if isWhole.left {
            folded.add("lokr_w1") { _, _ in [2, 4] }
        } else {
            folded.add("lokr_w1_a") { _, _ in [2, 2] }
            folded.add("lokr_w1_b") { _, _ in [2, 4] }
        }
        if isWhole.right {
            folded.add("lokr_w2") { out, into in [out / 2, into / 4] }
        } else {
            folded.add("lokr_w2_a") { out, _ in [out / 2, 2] }
            folded.add("lokr_w2_b") { _, into in [2, into / 4] }
        }
        return folded
    }

    private func check(_ folded: FoldedAdapter) throws {
        try folded.check { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            func factor(_ name: String, _ rows: Int, _ columns: Int) -> [Float] {
                let whole = folded.floats(path, name)
                guard whole.isEmpty else { return whole }
                return plainProduct(
                    folded.floats(path, "\(name)_a"), folded.floats(path, "\(name)_b"), rows,
                    columns, 2)
            }
            let left = factor("lokr_w1", 2, 4)
            let right = factor("lokr_w2", out / 2, into / 4)
            return (0..<out * into).map { index in
                let (row, column) = (index / into, index % into)
                return 1.5 * left[row / (out / 2) * 4 + column / (into / 4)]
                    * right[row % (out / 2) * (into / 4) + column % (into / 4)]
            }
        }
    }

    @Test func multipliesWholeFactorsAndProducts() throws {
        for isWhole in [(true, true), (true, false), (false, true), (false, false)] {
            try check(crafted(isWhole: isWhole))
        }
    }

    @Test func theHeadMayBeATarget() throws {
        try check(crafted(isWhole: (true, false), modules: ["q_proj", "lm_head"]))
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try crafted(isWhole: (false, false)).checkRefusals()
        try crafted(isWhole: (true, true)).checkRefusals()
        var other = crafted(isWhole: (true, true))
        other.adapter.file.add("base_model.model.model.layers.0.self_attn.q_proj.lokr_w2", [8, 5])
        let error = #expect(throws: AdapterError.self) { try other.adapter.inspect() }
        #expect(error?.message.contains("do not make [16, 16]") == true)
    }
}
