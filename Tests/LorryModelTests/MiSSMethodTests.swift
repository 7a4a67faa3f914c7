import Foundation
import LorryModel
import Testing

@Suite struct MiSSMethodTests {
    private static let modules = ["q_proj", "v_proj", "down_proj"]

    private func crafted(
        _ type: String, _ fields: [String: Any], _ shape: (Int, Int) -> [Int]
    ) -> FoldedAdapter {
        var folded = FoldedAdapter(type, Self.modules, fields)
        folded.add(type == "BONE" ? "bone_block" : "miss_block") { shape($0, $1) }
        return folded
    }

    private func checkSums(_ folded: FoldedAdapter, rank: Int, width: Int?) throws {
        try folded.check { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            let block = folded.floats(path, "miss_block") + folded.floats(path, "bone_block")
            let width = width ?? out
            return (0..<out * into).map { index in
                block[index % into % rank * width + index / into % width]
            }
        }
    }

    /// Ranks that divide the inputs, and that do not.
    @Test(arguments: [4, 5]) func spreadsSumsOfInputs(rank: Int) throws {
        for type in ["MISS", "BONE"] {
            let folded = crafted(type, ["r": rank, "init_weights": true]) { out, _ in [rank, out] }
            try checkSums(folded, rank: rank, width: nil)
        }
    }

    @Test func aSmallBlockRepeats() throws {
        let folded = crafted("MISS", ["r": 3, "init_weights": "mini", "mini_r": 4]) { _, _ in
            [3, 4]
        }
        try checkSums(folded, rank: 3, width: 4)
    }

    @Test(arguments: ["MISS", "BONE"]) func batMultipliesBlocksOfTheWeight(type: String) throws {
        let folded = crafted(type, ["r": 4, "init_weights": "bat"]) { out, _ in [out / 4, 4, 4] }
        try folded.check { path, weight in
            let (out, into) = FoldedAdapter.dimensions(path)
            let blocks = folded.floats(path, "miss_block") + folded.floats(path, "bone_block")
            return (0..<out * into).map { index in
                let (row, column) = (index / into, index % into)
                let block = blocks[row / 4 * 16..<row / 4 * 16 + 16]
                func own(_ inner: Int) -> Float {
                    block[block.startIndex + inner * 4 + column % 4]
                }
                let start = row * into + column / 4 * 4
                return (0..<4).reduce(own(row % 4)) { $0 + weight[start + $1] * own($1) }
            }
        }
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try crafted("MISS", ["r": 4]) { out, _ in [4, out] }.checkRefusals()
        try crafted("MISS", ["r": 4, "init_weights": "bat"]) { out, _ in [out / 4, 4, 4] }
            .checkRefusals()
        let odd = crafted("MISS", ["r": 5, "init_weights": "bat"]) { out, _ in [out / 5, 5, 5] }
        let error = #expect(throws: AdapterError.self) { try odd.adapter.inspect() }
        #expect(error?.message.contains("does not divide") == true)
        let other = crafted("MISS", ["r": 4, "init_weights": "new"]) { out, _ in [4, out] }
        #expect(throws: AdapterError.self) { try other.adapter.inspect() }
    }
}
