import Foundation
import LorryModel
import Testing

@Suite struct AdaLoRAMethodTests {
    private func crafted(rank: Int = 3) -> FoldedAdapter {
        var folded = FoldedAdapter(
            "ADALORA", ["q_proj", "down_proj"], ["init_r": 3, "r": 8, "lora_alpha": 16])
        folded.add("lora_A") { _, into in [rank, into] }
        folded.add("lora_B") { out, _ in [out, rank] }
        folded.add("lora_E") { _, _ in [rank, 1] }
        return folded
    }

    private func mask(_ folded: FoldedAdapter, _ mask: [Bool]) -> [String: [Bool]] {
        Dictionary(uniqueKeysWithValues: folded.paths.map { ("\($0).lora_E", mask) })
    }

    private func check(_ folded: FoldedAdapter, rank: Int) throws {
        try folded.check("rank \(rank)") { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            let values = folded.floats(path, "lora_E")
            let down = folded.floats(path, "lora_A").enumerated().map {
                $1 * values[$0 / into]
            }
            return plainProduct(folded.floats(path, "lora_B"), down, out, into, rank)
                .map { $0 * 16 / 3.00001 }
        }
    }

    @Test func dividesByTheFirstRankWhateverIsLeft() throws {
        try check(crafted(), rank: 3)
        var pruned = crafted(rank: 2)
        pruned.adapter.set("rank_pattern", mask(pruned, [true, false, true]))
        try check(pruned, rank: 2)
    }

    @Test func aModuleMayLoseAllItsRanks() throws {
        var empty = crafted(rank: 0)
        empty.adapter.set("rank_pattern", mask(empty, [false, false, false]))
        #expect(try empty.adapter.inspect().rank == 0)
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try crafted().checkRefusals()
        let error = #expect(throws: AdapterError.self) { try crafted(rank: 2).adapter.inspect() }
        #expect(error?.message.contains("has rank 2") == true)
        var other = crafted()
        other.adapter.set("use_dora", true)
        #expect(throws: AdapterError.self) { try other.adapter.inspect() }
    }
}
