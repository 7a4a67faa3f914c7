import Foundation
import LorryEngine
import LorryTensor
import Testing

/// The filters against sorting everything in double precision.
@Suite struct CandidateFilterTests {
    static let fusedLevels = KernelLevel.supported.filter { $0 != .portable }

    private struct Reference {
        let probabilities: [Double]
        /// Most probable first, equals by id; without what weighs nothing.
        let order: [Int]

        init(_ logits: [Float], temperature: Float = 1) {
            let most = Double(logits.filter { !$0.isNaN }.max() ?? 0)
            let weights = logits.map {
                $0.isNaN ? 0 : exp((Double($0) - most) / Double(temperature))
            }
            let total = weights.reduce(0, +)
            probabilities = weights.map { $0 / total }
            order = logits.indices.filter { weights[$0] > 0 }.sorted {
                logits[$0] == logits[$1] ? $0 < $1 : logits[$0] > logits[$1]
            }
        }

        /// The token that a walk in the order of ids reaches, and how near it was to another one.
        func token(at uniform: Double) -> (id: Int, margin: Double) {
            var sum = 0.0
            for (id, probability) in probabilities.enumerated() where probability > 0 {
                sum += probability
                if sum > uniform { return (id, min(sum - uniform, uniform - sum + probability)) }
            }
            return (probabilities.lastIndex { $0 > 0 } ?? 0, 0)
        }
    }

    private func normal(_ count: Int, _ scale: Float, _ random: inout SeededGenerator) -> [Float] {
        (0..<count).map { _ in
            let sum = (0..<6).reduce(Float(0)) { sum, _ in
                sum + Float.random(in: -1...1, using: &random)
            }
            return sum * scale
        }
    }

    private func draw(
        _ logits: [Float], _ parameters: SamplingParameters, _ uniform: Double,
        _ level: KernelLevel = Kernels.level
    ) -> Int32 {
        var row = logits
        var filter = CandidateFilter(parameters)
        var edits = LogitEdits()
        return row.withUnsafeMutableBufferPointer { row in
            let token = filter.draw(from: row, edits: &edits, uniform: uniform, level: level)
            edits.undo(in: row)
            return token
        }
    }

    private func kept(
        _ logits: [Float], _ parameters: SamplingParameters, _ level: KernelLevel = Kernels.level
    ) -> Set<Int32> {
        var row = logits
        var filter = CandidateFilter(parameters)
        return row.withUnsafeMutableBufferPointer { Set(filter.tokens(keptOf: $0, level: level)) }
    }

    private func bits(_ row: [Float]) -> [UInt32] { row.map(\.bitPattern) }

    @Test(arguments: KernelLevel.supported)
    func plainDrawsAreThoseOfAWalk(_ level: KernelLevel) {
        var random = SeededGenerator(seed: 31)
        for count in [1, 2, 15, 16, 17, 100, 1023, 1024, 1025, 3000, 20_000] {
            for (scale, temperature) in [(Float(0.05), Float(1)), (2, 0.6), (6, 1.7)] {
                var logits = normal(count, scale, &random)
                if count > 10 {
                    logits[3] = .nan
                    logits[count - 1] = -.infinity
                }
                var parameters = SamplingParameters()
                parameters.temperature = temperature
                let reference = Reference(logits, temperature: temperature)
                for _ in 0..<20 {
                    let uniform = Double.random(in: 0..<1, using: &random)
                    let (id, margin) = reference.token(at: uniform)
                    let found = draw(logits, parameters, uniform, level)
                    #expect(Int(found) == id || margin < 1e-6, "\(count) logits, \(uniform)")
                }
                let first = draw(logits, parameters, 0, level)
                #expect(reference.probabilities[Int(first)] > 0)
                let last = draw(logits, parameters, 1 - 0x1p-53, level)
                #expect(reference.probabilities[Int(last)] > 0)
            }
        }
    }

    /// Narrow and wide nuclei, with many equals and with none.
    @Test(arguments: KernelLevel.supported)
    func nucleiAreTheSmallestSets(_ level: KernelLevel) {
        var random = SeededGenerator(seed: 32)
        for count in [1, 63, 64, 65, 700, 5000, 30_000] {
            for (scale, step) in [(Float(0.05), Float(0)), (1, 0), (3, 0), (1, 0.25), (0.2, 0.5)] {
                var logits = normal(count, scale, &random)
                if step > 0 { logits = logits.map { ($0 / step).rounded() * step } }
                let reference = Reference(logits)
                for topP: Float in [0, 0.2, 0.6, 0.95, 0.9999] {
                    var parameters = SamplingParameters()
                    parameters.topP = topP
                    let found = kept(logits, parameters, level)
                    let expected = reference.order.prefix(found.count)
                    #expect(found == Set(expected.map { Int32($0) }), "\(count) logits, \(topP)")
                    let sum = expected.reduce(0) { $0 + reference.probabilities[$1] }
                    let least = expected.last.map { reference.probabilities[$0] } ?? 0
                    #expect(sum >= Double(topP) - 1e-6)
                    #expect(found.count == 1 || sum - least < Double(topP) + 1e-6)
                }
            }
        }
    }

    @Test(arguments: KernelLevel.supported)
    func topKTakesTheFirstOfEquals(_ level: KernelLevel) {
        var random = SeededGenerator(seed: 33)
        for count in [1, 40, 1000, 20_000] {
            for step: Float in [0, 0.5, 100] {
                var logits = normal(count, 2, &random)
                if step > 0 { logits = logits.map { ($0 / step).rounded() * step } }
                if count > 1 { logits[1] = .nan }
                let order = Reference(logits).order
                for topK in [1, 2, 40, 999] {
                    var parameters = SamplingParameters()
                    parameters.topK = topK
                    let found = kept(logits, parameters, level)
                    #expect(found == Set(order.prefix(topK).map { Int32($0) }))
                }
            }
        }
    }

    /// min-p, then top-k, then top-p, each over what the one before left.
    @Test func filtersFollowOneAnother() {
        var random = SeededGenerator(seed: 34)
        for _ in 0..<200 {
            let logits = normal(400, 1.5, &random)
            var parameters = SamplingParameters()
            parameters.minP = Float.random(in: 0.001...0.2, using: &random)
            parameters.topK = Int.random(in: 1...80, using: &random)
            parameters.topP = Float.random(in: 0.3...0.99, using: &random)
            let reference = Reference(logits)
            let bound = Double(parameters.minP) * (reference.probabilities.max() ?? 0)
            let left = reference.order.filter { reference.probabilities[$0] >= bound }
                .prefix(parameters.topK)
            let wanted =
                Double(parameters.topP) * left.reduce(0) { $0 + reference.probabilities[$1] }
            var sum = 0.0
            var expected: Set<Int32> = []
            for id in left where sum < wanted {
                sum += reference.probabilities[id]
                expected.insert(Int32(id))
            }
            #expect(kept(logits, parameters) == expected)
        }
    }

    @Test func filteredDrawsStayWithinWhatIsKept() {
        var random = SeededGenerator(seed: 35)
        let logits = normal(5000, 1, &random).map { ($0 / 0.25).rounded() * 0.25 }
        for change: (inout SamplingParameters) -> Void in [
            { $0.topP = 0.7 }, { $0.topK = 30 }, { $0.minP = 0.05 }, { $0.typicalP = 0.5 },
        ] {
            var parameters = SamplingParameters()
            change(&parameters)
            let kept = kept(logits, parameters)
            let drawn = (0..<2000).map { _ in
                draw(logits, parameters, Double.random(in: 0..<1, using: &random))
            }
            #expect(Set(drawn).isSubset(of: kept))
            #expect(kept.count > 1000 || Set(drawn).count > min(kept.count / 4, 20))
        }
    }

    /// The same logits and seed give the same tokens, whatever the fused level, and the logits are
    /// back where they were.
    @Test func fusedLevelsDrawTheSame() {
        var random = SeededGenerator(seed: 36)
        let rows = (0..<6).map { normal(4000 + 7 * $0, [0.1, 1, 4][$0 % 3], &random) }
        var request = GenerationRequest(id: "test", promptTokens: [1, 2, 3], maximumTokenCount: 9)
        request.sampling.seed = 11
        request.sampling.repetitionPenalty = 1.2
        request.sampling.presencePenalty = 0.3
        request.sampling.logitBias = [5: 2, 6: -.infinity]
        request.minimumTokenCount = 3
        for change: (inout SamplingParameters) -> Void in [
            { _ in }, { $0.temperature = 0 }, { $0.temperature = 0.7 }, { $0.topP = 0.9 },
            { $0.topK = 50 }, { $0.minP = 0.02 }, { $0.typicalP = 0.8 },
        ] {
            var changed = request
            change(&changed.sampling)
            let answers = Self.fusedLevels.map { level -> [Int32] in
                var sampler = Sampler(changed, endTokens: [7])
                return rows.map { logits in
                    var row = logits
                    let token = row.withUnsafeMutableBufferPointer {
                        sampler.sample($0, level: level)
                    }
                    #expect(bits(row) == bits(logits))
                    return token
                }
            }
            #expect(Set(answers).count <= 1)
        }
    }

    @Test func logitsOutOfRange() {
        var parameters = SamplingParameters()
        for topP: Float in [1, 0.5] {
            parameters.topP = topP
            let infinite: [Float] = [0, .infinity, .nan, .infinity, 5]
            #expect(draw(infinite, parameters, 0.49) == 1)
            #expect(draw(infinite, parameters, 0.51) == 3)
            let banned: [Float] = [.nan, -.infinity, -.infinity]
            #expect(draw(banned, parameters, 0.1) == 1)
            #expect(draw(banned, parameters, 0.9) == 2)
            #expect(draw([.nan, .nan], parameters, 0.5) == 0)
            #expect(draw([.nan, 3, .nan], parameters, 0.99) == 1)
        }
    }

    @Test(arguments: KernelLevel.supported)
    func ranksAndAlternativesMatchASort(_ level: KernelLevel) {
        var random = SeededGenerator(seed: 37)
        for step: Float in [0.01, 1] {
            let logits = normal(9000, 2, &random).map { ($0 / step).rounded() * step }
            let order = Reference(logits).order
            logits.withUnsafeBufferPointer { row in
                let reader = LogprobReader(row, level: level)
                var scratch = GreatestLogits()
                for token in [0, order[0], order[5], order[8999]] {
                    let found = reader.logprobs(
                        of: Int32(token), topCount: 7, using: &scratch)
                    #expect(found.rank == 1 + logits.count { $0 > logits[token] })
                    #expect(found.top.map(\.id) == order.prefix(7).map { Int32($0) })
                }
            }
        }
    }
}
