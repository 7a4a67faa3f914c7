import Foundation
import LorryModel
import Testing

@Suite struct VeRAMethodTests {
    private func crafted(_ type: String = "VERA", rank: Int = 3) -> FoldedAdapter {
        let name = type.lowercased()
        var folded = FoldedAdapter(type, ["q_proj", "v_proj", "down_proj"], ["r": rank])
        let rows = type == "PVERA" ? 2 * rank : rank
        folded.add("\(name)_lambda_d") { _, _ in [rows] }
        folded.add("\(name)_lambda_b") { out, _ in [out] }
        folded.adapter.file.add("base_model.\(name)_A", [rows, 24])
        folded.adapter.file.add("base_model.\(name)_B", [16, rank])
        return folded
    }

    @Test(arguments: ["VERA", "PVERA"]) func cutsModulesOutOfSharedMatrices(type: String) throws {
        let name = type.lowercased()
        let folded = crafted(type)
        let (a, b) = (folded.shared("\(name)_A"), folded.shared("\(name)_B"))
        try folded.check { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            let between = folded.floats(path, "\(name)_lambda_d")
            let after = folded.floats(path, "\(name)_lambda_b")
            return (0..<out * into).map { index in
                let (row, column) = (index / into, index % into)
                return after[row]
                    * (0..<3).reduce(Float(0)) {
                        $0 + b[row * 3 + $1] * between[$1] * a[$1 * 24 + column]
                    }
            }
        }
    }

    @Test func drawsWhatIsNotSaved() throws {
        var drawn = crafted()
        drawn.adapter.set("save_projection", false)
        _ = try drawn.adapter.inspect()
        drawn.adapter.file.tensors["base_model.vera_A"] = nil
        drawn.adapter.file.tensors["base_model.vera_B"] = nil
        _ = try drawn.adapter.inspect()
        drawn.adapter.set("projection_prng_key", -1)
        let error = #expect(throws: AdapterError.self) { try drawn.adapter.inspect() }
        #expect(error?.message.contains("projection_prng_key") == true)
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try crafted().checkRefusals()
        try crafted("PVERA").checkRefusals()
        var small = crafted()
        small.adapter.file.add("base_model.vera_A", [3, 16])
        #expect(throws: AdapterError.self) { try small.adapter.inspect() }
        var random = crafted("PVERA")
        random.adapter.set("sample_at_inference", true)
        let error = #expect(throws: AdapterError.self) { try random.adapter.inspect() }
        #expect(error?.message.contains("random") == true)
    }
}

@Suite struct RandLoRAMethodTests {
    private func crafted(rank: Int) -> FoldedAdapter {
        let modules = ["q_proj", "v_proj", "gate_proj", "down_proj"]
        var folded = FoldedAdapter("RANDLORA", modules, ["r": rank, "randlora_alpha": 10])
        func count(_ out: Int, _ into: Int) -> Int { (min(out, into) + rank - 1) / rank }
        folded.add("randlora_lambda") { [rank, count($0, $1)] }
        folded.add("randlora_gamma") { [count($0, $1), min($0, $1)] }
        folded.adapter.file.add("base_model.randlora_A", [rank, 1, 24])
        folded.adapter.file.add("base_model.randlora_B", [24, count(24, 24), rank])
        return folded
    }

    /// Ranks that divide the features, and that do not; wide, tall and square modules.
    @Test(arguments: [4, 5]) func mixesBases(rank: Int) throws {
        let folded = crafted(rank: rank)
        let (a, b) = (folded.shared("randlora_A"), folded.shared("randlora_B"))
        let stride = (24 + rank - 1) / rank * rank
        try folded.check("rank \(rank)") { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            let (small, large) = (min(out, into), max(out, into))
            let count = (small + rank - 1) / rank
            let lambda = folded.floats(path, "randlora_lambda")
            let gamma = folded.floats(path, "randlora_gamma")
            let ua = (0..<rank * count * small).map { index in
                let (row, j) = (index / small, index % small)
                return lambda[row] * a[row / count * 24 + j] * gamma[row % count * small + j]
            }
            let product = (0..<large * small).map { index in
                (0..<rank * count).reduce(Float(0)) {
                    $0 + b[index / small * stride + $1] * ua[$1 * small + index % small]
                }
            }
            return (0..<out * into).map { index in
                let (row, column) = (index / into, index % into)
                let place = small == into ? row * small + column : column * small + row
                return product[place] * 10 / Float(rank)
            }
        }
    }

    @Test func drawsWhatIsNotSaved() throws {
        for field in ["save_projection", "sparse", "very_sparse"] {
            var drawn = crafted(rank: 4)
            drawn.adapter.file.tensors["base_model.randlora_A"] = nil
            drawn.adapter.file.tensors["base_model.randlora_B"] = nil
            drawn.adapter.set(field, true)
            drawn.adapter.set("save_projection", false)
            _ = try drawn.adapter.inspect()
        }
    }

    @Test func refusesWhatItDoesNotKnow() throws { try crafted(rank: 4).checkRefusals() }
}
