import Foundation
import LorryModel
import Testing

@Suite struct GraLoRAMethodTests {
    private func crafted(generalRank: Int) -> FoldedAdapter {
        var folded = FoldedAdapter(
            "GRALORA", ["q_proj", "v_proj", "down_proj"],
            ["r": 4, "gralora_k": 2, "hybrid_r": generalRank, "alpha": 9])
        folded.add("gralora_A") { _, into in [2, into / 2, 4] }
        folded.add("gralora_B") { out, _ in [2, 4, out / 2] }
        if generalRank > 0 {
            folded.add("gralora_A_general.weight") { _, into in [generalRank, into] }
            folded.add("gralora_B_general.weight") { out, _ in [out, generalRank] }
        }
        return folded
    }

    @Test(arguments: [0, 3]) func exchangesRanksBetweenBlocks(generalRank: Int) throws {
        let folded = crafted(generalRank: generalRank)
        try folded.check("hybrid_r \(generalRank)") { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            let (a, b) = (folded.floats(path, "gralora_A"), folded.floats(path, "gralora_B"))
            var delta = plainProduct(
                folded.floats(path, "gralora_B_general.weight"),
                folded.floats(path, "gralora_A_general.weight"), out, into, generalRank)
            for row in 0..<out {
                for column in 0..<into {
                    let (j, n) = (row / (out / 2), column / (into / 2))
                    for t in 0..<2 {
                        delta[row * into + column] +=
                            a[column * 4 + j * 2 + t]
                            * b[(j * 4 + n * 2 + t) * (out / 2) + row % (out / 2)]
                    }
                }
            }
            return delta.map { $0 * 9 / Float(4 + generalRank) }
        }
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try crafted(generalRank: 2).checkRefusals()
        var odd = crafted(generalRank: 0)
        odd.adapter.set("gralora_k", 3)
        #expect(throws: AdapterError.self) { try odd.adapter.inspect() }
    }
}

@Suite struct VBLoRAMethodTests {
    private func crafted() -> FoldedAdapter {
        var folded = FoldedAdapter(
            "VBLORA", ["q_proj", "v_proj", "down_proj"],
            ["r": 2, "num_vectors": 6, "vector_length": 8, "topk": 2])
        folded.add("vblora_logits_A") { _, into in [2, into / 8, 6] }
        folded.add("vblora_logits_B") { out, _ in [out / 8, 2, 6] }
        folded.adapter.file.add("base_model.vblora_vector_bank", [6, 8])
        return folded
    }

    @Test func mixesTheVectorsOfTheLargestLogits() throws {
        let folded = crafted()
        let bank = folded.shared("vblora_vector_bank")
        func mix(_ logits: ArraySlice<Float>, _ index: Int) -> Float {
            let order = logits.indices.sorted { logits[$0] > logits[$1] }
            let weights = order[..<2].map { Float(exp(Double(logits[$0]))) }
            return zip(order, weights).reduce(Float(0)) {
                $0 + $1.1 / (weights[0] + weights[1])
                    * bank[($1.0 - logits.startIndex) * 8 + index]
            }
        }
        try folded.check { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            let a = folded.floats(path, "vblora_logits_A")
            let b = folded.floats(path, "vblora_logits_B")
            let down = (0..<2 * into).map { index in
                let start = index / 8 * 6
                return mix(a[start..<start + 6], index % 8)
            }
            let up = (0..<out * 2).map { index in
                let (row, rank) = (index / 2, index % 2)
                let start = (row / 8 * 2 + rank) * 6
                return mix(b[start..<start + 6], row % 8)
            }
            return plainProduct(up, down, out, into, 2)
        }
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try crafted().checkRefusals()
        var odd = crafted()
        odd.adapter.set("topk", 7)
        #expect(throws: AdapterError.self) { try odd.adapter.inspect() }
    }
}

@Suite struct DeLoRAMethodTests {
    private func crafted() -> FoldedAdapter {
        var folded = FoldedAdapter("DELORA", ["q_proj", "v_proj", "down_proj"], ["r": 2])
        folded.add("delora_A") { _, into in [2, into] }
        folded.add("delora_B") { out, _ in [out, 2] }
        folded.add("delora_lambda") { _, _ in [1] }
        folded.add("delora_w_norm") { _, into in [into] }
        return folded
    }

    private func norm(_ numbers: some Sequence<Float>) -> Float {
        max(numbers.reduce(0) { $0 + $1 * $1 }.squareRoot(), 1e-4)
    }

    /// The weight's norms as saved, and those of the base.
    @Test(arguments: [true, false]) func dividesByNorms(isSaved: Bool) throws {
        var folded = crafted()
        if !isSaved {
            folded.adapter.file.tensors = folded.adapter.file.tensors.filter {
                !$0.key.hasSuffix("w_norm")
            }
        }
        try folded.check("saved \(isSaved)") { path, weight in
            let (out, into) = FoldedAdapter.dimensions(path)
            let (a, b) = (folded.floats(path, "delora_A"), folded.floats(path, "delora_B"))
            let lambda = folded.floats(path, "delora_lambda")[0]
            return (0..<out * into).map { index in
                let (row, column) = (index / into, index % into)
                let scale =
                    isSaved
                    ? folded.floats(path, "delora_w_norm")[column]
                    : norm((0..<out).map { weight[$0 * into + column] })
                return scale
                    * (0..<2).reduce(Float(0)) { sum, k in
                        let norms =
                            norm(a[k * into..<(k + 1) * into])
                            * norm((0..<out).map { b[$0 * 2 + k] })
                        return sum + b[row * 2 + k] * lambda / (2 * norms) * a[k * into + column]
                    }
            }
        }
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try crafted().checkRefusals(optional: ["w_norm"])
    }
}
