import LorryTensor
import Testing

@Suite struct MatmulCutTests {
    @Test func tasksHaveEachTileOnce() {
        for threadCount in 1...9 {
            for isStreaming in [false, true] {
                for tileCount in Array(1...40) + [127, 128, 1000, 8016] {
                    let cut = MatmulCut(
                        tileCount: tileCount, threadCount: threadCount, isStreaming: isStreaming)
                    var counts = [Int](repeating: 0, count: tileCount)
                    for task in 0..<cut.taskCount {
                        for tile in cut.tiles(of: task) { counts[tile] += 1 }
                    }
                    #expect(
                        counts.allSatisfy { $0 == 1 },
                        "\(tileCount) tiles, \(threadCount) threads, streaming \(isStreaming)")
                }
            }
        }
    }

    @Test func aStreamingThreadStartsWithMostOfItsShare() {
        let cut = MatmulCut(tileCount: 128, threadCount: 2, isStreaming: true)
        #expect(cut.tiles(of: 0) == 0..<48)
        #expect(cut.tiles(of: 1) == 64..<112)
        #expect(cut.tiles(of: 2) == 48..<52)
        #expect(cut.tiles(of: 3) == 112..<116)
        #expect(cut.tiles(of: cut.taskCount - 1) == 124..<128)
    }
}
