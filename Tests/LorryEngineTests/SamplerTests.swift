import Foundation
import LorryEngine
import Testing

@Suite struct SamplerTests {
    private func request(
        prompt: [Int32] = [0], _ change: (inout GenerationRequest) -> Void = { _ in }
    ) -> GenerationRequest {
        var request = GenerationRequest(id: "test", promptTokens: prompt, maximumTokenCount: 100)
        request.sampling.seed = 1
        change(&request)
        return request
    }

    private func sample(_ sampler: inout Sampler, _ logits: [Float]) -> Int32 {
        var logits = logits
        return logits.withUnsafeMutableBufferPointer { sampler.sample($0) }
    }

    private func kept(_ logits: [Float], _ parameters: SamplingParameters) -> Set<Int32> {
        var logits = logits
        return logits.withUnsafeMutableBufferPointer {
            var filter = CandidateFilter(parameters)
            return Set(filter.tokens(keptOf: $0))
        }
    }

    private func logits(_ count: Int, _ random: inout SeededGenerator) -> [Float] {
        (0..<count).map { _ in Float.random(in: -6...6, using: &random) }
    }

    private func probabilities(_ logits: [Float]) -> [Double] {
        let greatest = Double(logits.max() ?? 0)
        let weights = logits.map { exp(Double($0) - greatest) }
        let total = weights.reduce(0, +)
        return weights.map { $0 / total }
    }

    @Test func greedyTakesTheGreatestAndTheFirstOfEquals() {
        for temperature: Float in [0, -1, 1e-30] {
            var sampler = Sampler(request { $0.sampling.temperature = temperature })
            #expect(sample(&sampler, [1, 5, 3, 5]) == 1)
        }
    }

    @Test func topKKeepsTheGreatest() {
        var random = SeededGenerator(seed: 4)
        for count in [1, 2, 7, 64, 65, 300] {
            let logits = logits(300, &random)
            var parameters = SamplingParameters()
            parameters.topK = count
            let order = logits.indices.sorted { logits[$0] > logits[$1] }
            #expect(kept(logits, parameters) == Set(order.prefix(count).map { Int32($0) }))
        }
    }

    @Test func topPKeepsTheSmallestSetThatReachesIt() {
        var random = SeededGenerator(seed: 5)
        for topP: Float in [0, 0.1, 0.5, 0.9, 0.999] {
            for size in [5, 200, 3000] {
                let logits = logits(size, &random)
                var parameters = SamplingParameters()
                parameters.topP = topP
                let found = kept(logits, parameters)
                let probabilities = probabilities(logits)
                let order = logits.indices.sorted { logits[$0] > logits[$1] }
                #expect(found == Set(order.prefix(found.count).map { Int32($0) }))
                let sum = found.reduce(0) { $0 + probabilities[Int($1)] }
                let last = probabilities[order[found.count - 1]]
                #expect(sum >= Double(topP) - 1e-6)
                #expect(found.count == 1 || sum - last < Double(topP) + 1e-6)
            }
        }
    }

    @Test func minPKeepsWhatIsProbableEnough() {
        var random = SeededGenerator(seed: 6)
        for minP: Float in [0.01, 0.1, 0.5, 1] {
            let logits = logits(400, &random)
            var parameters = SamplingParameters()
            parameters.minP = minP
            let probabilities = probabilities(logits)
            let bound = Double(minP) * (probabilities.max() ?? 0)
            let found = kept(logits, parameters)
            for (index, probability) in probabilities.enumerated()
            where abs(probability - bound) > 1e-6 * bound {
                #expect(found.contains(Int32(index)) == (probability > bound))
            }
            #expect(!found.isEmpty)
        }
    }

    @Test func typicalPKeepsTheLeastSurprising() {
        var random = SeededGenerator(seed: 7)
        for typicalP: Float in [0.05, 0.3, 0.8, 0.99] {
            let logits = logits(120, &random)
            var parameters = SamplingParameters()
            parameters.typicalP = typicalP
            let probabilities = probabilities(logits)
            let entropy = probabilities.reduce(0) { $0 - $1 * log($1) }
            let order = logits.indices.sorted {
                abs(-log(probabilities[$0]) - entropy) < abs(-log(probabilities[$1]) - entropy)
            }
            var sum = 0.0
            var expected: Set<Int32> = []
            for index in order where sum < Double(typicalP) {
                expected.insert(Int32(index))
                sum += probabilities[index]
            }
            #expect(kept(logits, parameters) == expected)
        }
    }

    /// Pearson's statistic of 20,000 draws over 8 tokens; its mean is 7, and above 35 is one in
    /// 100,000.
    @Test func drawsFollowTheDistribution() {
        let logits: [Float] = [0, 1, 2, -1, 0.5, 1.5, -2, 0.25]
        for (seed, temperature) in [(UInt64(1), Float(1)), (2, 0.7), (3, 2)] {
            var sampler = Sampler(
                request {
                    $0.sampling.seed = seed
                    $0.sampling.temperature = temperature
                })
            var counts = [Int](repeating: 0, count: logits.count)
            for _ in 0..<20_000 { counts[Int(sample(&sampler, logits))] += 1 }
            let expected = probabilities(logits.map { $0 / temperature }).map { $0 * 20_000 }
            let statistic = zip(counts, expected).reduce(0) {
                $0 + pow(Double($1.0) - $1.1, 2) / $1.1
            }
            #expect(statistic < 35)
        }
    }

    @Test func seedsMakeDrawsReproducible() {
        func draws(_ seed: UInt64?) -> [Int32] {
            var sampler = Sampler(request { $0.sampling.seed = seed })
            return (0..<64).map { _ in
                sample(&sampler, [Float](repeating: 0, count: 1000))
            }
        }
        #expect(draws(9) == draws(9))
        #expect(draws(9) != draws(10))
        #expect(draws(nil) != draws(nil))
    }

    @Test func penalties() {
        // Token 2 leads; once in the answer it is pushed below the others, one after the other.
        var presence = Sampler(
            request {
                $0.sampling.temperature = 0
                $0.sampling.presencePenalty = 1.5
            })
        #expect((0..<4).map { _ in sample(&presence, [0, 1, 2]) } == [2, 1, 2, 2])
        var frequency = Sampler(
            request {
                $0.sampling.temperature = 0
                $0.sampling.frequencyPenalty = 0.75
            })
        #expect((0..<4).map { _ in sample(&frequency, [0, 1, 2]) } == [2, 2, 1, 2])
        var repetition = Sampler(
            request(prompt: [2, 0]) {
                $0.sampling.temperature = 0
                $0.sampling.repetitionPenalty = 4
            })
        // 2 / 4 for the prompt's token; then token 1 is in the answer: 1 / 4.
        #expect((0..<2).map { _ in sample(&repetition, [-1, 1, 2]) } == [1, 2])
        var negative = Sampler(
            request(prompt: [1]) {
                $0.sampling.temperature = 0
                $0.sampling.repetitionPenalty = 2
            })
        #expect(sample(&negative, [-1.5, -1, -3]) == 0, "a negative logit is multiplied")
    }

    @Test func biasesAndEarlyBans() {
        var biased = Sampler(
            request {
                $0.sampling.temperature = 0
                $0.sampling.logitBias = [0: 5, 99: 1, -1: 1]
            })
        #expect(sample(&biased, [0, 1, 2]) == 0)
        var banned = Sampler(
            request {
                $0.sampling.temperature = 0
                $0.minimumTokenCount = 2
            }, endTokens: [2, 99])
        #expect((0..<3).map { _ in sample(&banned, [0, 1, 2]) } == [1, 1, 2])
    }

    @Test func logprobsAreThoseOfTheLogits() {
        var random = SeededGenerator(seed: 8)
        let logits = logits(500, &random)
        let probabilities = probabilities(logits)
        let order = logits.indices.sorted { logits[$0] > logits[$1] }
        logits.withUnsafeBufferPointer { buffer in
            let reader = LogprobReader(buffer)
            var scratch = GreatestLogits()
            for place in [0, 1, 17, 499] {
                let token = order[place]
                let found = reader.logprobs(of: Int32(token), topCount: 20, using: &scratch)
                #expect(found.rank == place + 1)
                #expect(abs(Double(found.logprob) - log(probabilities[token])) < 1e-4)
                #expect(found.top.map(\.id) == order.prefix(20).map { Int32($0) })
                #expect(
                    found.top.allSatisfy {
                        abs(Double($0.logprob) - log(probabilities[Int($0.id)])) < 1e-4
                    })
            }
            let none = reader.logprobs(of: 0, topCount: 0, using: &scratch)
            #expect(none.top.isEmpty)
            let all = reader.logprobs(of: 0, topCount: 900, using: &scratch)
            #expect(all.top.count == 500)
        }
        [Float](repeating: 1, count: 5).withUnsafeBufferPointer {
            var scratch = GreatestLogits()
            let found = LogprobReader($0).logprobs(of: 3, topCount: 3, using: &scratch)
            #expect(found.top.map(\.id) == [0, 1, 2])
        }
    }
}
