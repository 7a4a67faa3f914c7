import LorryModel
import Testing

/// Against numbers that torch and numpy print for well-known seeds.
@Suite struct TorchGeneratorTests {
    private func expect(_ found: [Float], _ expected: [Float]) {
        #expect(found.count >= expected.count)
        for (found, expected) in zip(found, expected) { #expect(abs(found - expected) < 1e-4) }
    }

    @Test func drawsAsTheMersenneTwister() {
        var generator = TorchGenerator(seed: 5489)
        #expect(generator.draw() == 3_499_211_612)
        // The ten thousandth draw of the default seed, as C++ demands.
        for _ in 0..<9998 { _ = generator.draw() }
        #expect(generator.draw() == 4_123_659_995)
    }

    /// `torch.rand(3)` with seed 0.
    @Test func uniformNumbers() {
        var generator = TorchGenerator(seed: 0)
        expect(generator.uniform(count: 3, from: 0, to: 1), [0.4963, 0.7682, 0.0885])
    }

    /// `torch.randn(4)` with seed 0 and `torch.randn(3)` with seed 42.
    @Test func fewNormalNumbers() {
        var generator = TorchGenerator(seed: 0)
        expect(generator.normal(count: 4, deviation: 1), [1.5410, -0.2934, -2.1788, 0.5684])
        generator = TorchGenerator(seed: 42)
        expect(generator.normal(count: 3, deviation: 2), [0.6734, 0.2576, 0.4690])
    }

    /// The first of `torch.randn(3, 10)` with seed 42, whose tail is drawn again.
    @Test func manyNormalNumbers() {
        var generator = TorchGenerator(seed: 42)
        expect(
            generator.normal(count: 100, deviation: 1), [1.9269, 1.4873, 0.9007, -2.1055, 0.6784])
        generator = TorchGenerator(seed: 42)
        let numbers = generator.normal(count: 21, deviation: 1)
        #expect(numbers.count == 21)
        expect(numbers, [1.9269, 1.4873, 0.9007, -2.1055, 0.6784])
    }

    @Test func permutationsHaveEveryNumberOnce() {
        for bound in [1, 2, 17, 1000] {
            var generator = TorchGenerator(seed: bound)
            let whole = generator.permutation(of: bound, prefix: bound)
            #expect(whole.sorted() == Array(0..<bound))
            generator = TorchGenerator(seed: bound)
            let part = generator.permutation(of: bound, prefix: (bound + 1) / 2)
            #expect(part == Array(whole[..<((bound + 1) / 2)]))
        }
    }
}

@Suite struct NumpyGeneratorTests {
    /// `default_rng(42).shuffle(arange(10))`
    @Test func shuffles() {
        var generator = NumpyGenerator(seed: 42)
        var numbers: [Int32] = Array(0..<10)
        generator.shuffle(&numbers)
        #expect(numbers == [5, 6, 0, 7, 3, 2, 4, 9, 1, 8])
    }

    /// `default_rng(42).choice(…, replace=False)`, by Floyd's algorithm and from a shuffled tail.
    @Test func chooses() {
        var generator = NumpyGenerator(seed: 42)
        #expect(generator.choice(of: 10, count: 4) == [4, 0, 5, 6])
        generator = NumpyGenerator(seed: 42)
        #expect(
            Array(generator.choice(of: 20000, count: 1000)[..<6]) == [
                9742, 18275, 6853, 10003, 11897, 10066,
            ])
    }

    /// 26 numbers of 8 kinds: what is left over is chosen before all are shuffled.
    @Test func drawsGoOnBetweenChoiceAndShuffle() {
        var generator = NumpyGenerator(seed: 42)
        var numbers = (0..<8).flatMap { Array(repeating: Int32($0), count: 3) }
        numbers += generator.choice(of: 8, count: 2)
        generator.shuffle(&numbers)
        #expect(
            numbers == [
                2, 5, 0, 7, 6, 1, 2, 6, 3, 6, 6, 3, 2, 7, 1, 0, 5, 5, 7, 4, 3, 4, 4, 0, 1, 0,
            ])
    }
}
