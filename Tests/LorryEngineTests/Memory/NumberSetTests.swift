import LorryEngine
import Testing

@Suite struct NumberSetTests {
    @Test(arguments: [1, 2, 63, 64, 65, 4096, 4097])
    func agreesWithASet(_ bound: Int) {
        var random = SeededGenerator(seed: UInt64(bound))
        for isFull in [true, false] {
            var set = NumberSet(bound: bound, isFull: isFull)
            var expected = isFull ? Set(0..<bound) : []
            for _ in 0..<4000 {
                let number = Int.random(in: 0..<bound, using: &random)
                if Bool.random(using: &random) {
                    #expect(set.insert(number) == expected.insert(number).inserted)
                } else {
                    #expect(set.remove(number) == (expected.remove(number) != nil))
                }
                let isRight =
                    set.count == expected.count && set.contains(number) == expected.contains(number)
                    && (bound > 100 || (set.first == expected.min() && set.last == expected.max()))
                #expect(isRight, "bound \(bound)")
            }
            #expect(set.first == expected.min())
            #expect(set.last == expected.max())
            // From both ends until it is empty.
            while let first = set.first, let last = set.last {
                #expect(first == expected.min() || bound > 100)
                set.remove(first)
                set.remove(last)
                expected.remove(first)
                expected.remove(last)
                #expect(set.count == expected.count)
            }
            #expect(expected.isEmpty)
        }
    }
}
