import Foundation
import LorryTensor

/// Chooses a sequence's next token from its logits.
///
/// Random numbers are a function of the seed and the token's place in the answer, so that a
/// preempted sequence, computed again, goes on as it would have.
package struct Sampler {
    private let parameters: SamplingParameters
    private let seed: UInt64
    /// Tokens that must not be chosen yet, and until how many tokens of answer.
    private let bannedEarly: Set<Int32>
    private let minimumTokenCount: Int
    private let promptTokens: Set<Int32>
    /// How often each token occurs in the answer; kept only where a penalty asks for it.
    private var answerCounts: [Int32: Int] = [:]
    private var generatedCount = 0

    package init(_ request: GenerationRequest, endTokens: Set<Int32> = []) {
        parameters = request.sampling
        seed = request.sampling.seed ?? .random(in: .min ... .max)
        bannedEarly = endTokens
        minimumTokenCount = request.minimumTokenCount
        promptTokens = request.sampling.repetitionPenalty == 1 ? [] : Set(request.promptTokens)
    }

    /// Below this the most probable token is taken: dividing by it would overflow (vLLM's bound).
    private static let greedyTemperature: Float = 1e-5

    /// - Parameter logits: `[count]`; changed in place.
    package mutating func sample(_ logits: UnsafeMutableBufferPointer<Float>) -> Int32 {
        adjust(logits)
        let token: Int32
        if parameters.temperature < Self.greedyTemperature {
            token = Int32(argmax(UnsafePointer(logits.baseAddress!), count: logits.count))
        } else {
            for index in logits.indices { logits[index] /= parameters.temperature }
            token = CandidateFilter(parameters).draw(from: logits, uniform: nextUniform())
        }
        generatedCount += 1
        if hasPenalties { answerCounts[token, default: 0] += 1 }
        return token
    }

    private var hasPenalties: Bool {
        parameters.repetitionPenalty != 1 || parameters.frequencyPenalty != 0
            || parameters.presencePenalty != 0
    }

    private func adjust(_ logits: UnsafeMutableBufferPointer<Float>) {
        for (token, bias) in parameters.logitBias where logits.indices.contains(Int(token)) {
            logits[Int(token)] += bias
        }
        if generatedCount < minimumTokenCount {
            for token in bannedEarly where logits.indices.contains(Int(token)) {
                logits[Int(token)] = -.infinity
            }
        }
        guard hasPenalties else { return }
        if parameters.repetitionPenalty != 1 {
            for token in promptTokens.union(answerCounts.keys) {
                let logit = logits[Int(token)]
                logits[Int(token)] =
                    logit > 0
                    ? logit / parameters.repetitionPenalty : logit * parameters.repetitionPenalty
            }
        }
        for (token, count) in answerCounts {
            logits[Int(token)] -=
                Float(count) * parameters.frequencyPenalty + parameters.presencePenalty
        }
    }

    /// In `[0, 1)`: the SplitMix64 output of the seed at this token's place.
    private func nextUniform() -> Double {
        var z = seed &+ (UInt64(generatedCount) &+ 1) &* 0x9E37_79B9_7F4A_7C15
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        z ^= z >> 31
        return Double(z >> 11) * 0x1p-53
    }
}

/// The filters min-p, top-k, top-p and typical-p, and the draw from what they leave.
package struct CandidateFilter {
    package struct Candidate {
        package var id: Int32
        /// After softmax; normalized only within what is left when a filter asks.
        package var weight: Double
    }

    private let parameters: SamplingParameters

    package init(_ parameters: SamplingParameters) { self.parameters = parameters }

    /// - Parameters:
    ///   - logits: after temperature.
    ///   - uniform: in `[0, 1)`.
    package func draw(from logits: UnsafeMutableBufferPointer<Float>, uniform: Double) -> Int32 {
        let candidates = self.candidates(logits)
        let total = candidates.reduce(0) { $0 + $1.weight }
        var remaining = uniform * total
        for candidate in candidates {
            remaining -= candidate.weight
            if remaining < 0 { return candidate.id }
        }
        // Rounding may leave a sliver past the last one.
        return candidates.last { $0.weight > 0 }?.id ?? 0
    }

    /// What the filters leave; never empty.
    package func candidates(_ logits: UnsafeMutableBufferPointer<Float>) -> [Candidate] {
        let greatest = logits.max() ?? 0
        guard greatest.isFinite else {
            // A penalty or a temperature drove some out of range: those are the only candidates.
            return logits.indices.filter { logits[$0] == greatest }.map {
                .init(id: Int32($0), weight: 1)
            }
        }
        var candidates: [Candidate] = []
        // exp underflows to an irrelevant weight long before this.
        let floor = max(
            greatest - 80, parameters.minP > 0 ? greatest + log(parameters.minP) : -.infinity)
        for (index, logit) in logits.enumerated() where logit >= floor {
            candidates.append(.init(id: Int32(index), weight: Double(exp(logit - greatest))))
        }
        if parameters.topK > 0, candidates.count > parameters.topK {
            candidates = Self.greatest(parameters.topK, of: candidates)
        }
        if parameters.topP < 1 { candidates = nucleus(candidates) }
        if parameters.typicalP < 1 { candidates = typical(candidates) }
        return candidates
    }

    /// The smallest set of most probable candidates whose probabilities reach top-p.
    private func nucleus(_ candidates: [Candidate]) -> [Candidate] {
        let wanted = Double(parameters.topP) * candidates.reduce(0) { $0 + $1.weight }
        // Few candidates usually hold most of the mass: sort only as many as it takes.
        var count = min(64, candidates.count)
        while true {
            let head = Self.greatest(count, of: candidates)
            var sum = 0.0
            for (index, candidate) in head.enumerated() {
                sum += candidate.weight
                if sum >= wanted { return Array(head[...index]) }
            }
            if count == candidates.count { return head }
            count = min(count * 8, candidates.count)
        }
    }

    /// Candidates whose surprise is nearest to the expected one (arXiv 2202.00666).
    private func typical(_ candidates: [Candidate]) -> [Candidate] {
        let total = candidates.reduce(0) { $0 + $1.weight }
        let surprises = candidates.map { $0.weight > 0 ? -log($0.weight / total) : .infinity }
        let entropy = zip(candidates, surprises).reduce(0.0) { sum, pair in
            pair.0.weight > 0 ? sum + pair.0.weight / total * pair.1 : sum
        }
        let order = candidates.indices.sorted { a, b in
            let (x, y) = (abs(surprises[a] - entropy), abs(surprises[b] - entropy))
            return x == y ? candidates[a].id < candidates[b].id : x < y
        }
        var kept: [Candidate] = []
        var sum = 0.0
        for index in order {
            kept.append(candidates[index])
            sum += candidates[index].weight / total
            if sum >= Double(parameters.typicalP) { break }
        }
        return kept
    }

    /// The `count` most probable, most probable first; equals in the order of their ids.
    ///
    /// - Complexity: O(n + count · log n), by a heap over all candidates.
    package static func greatest(_ count: Int, of candidates: [Candidate]) -> [Candidate] {
        func precedes(_ a: Candidate, _ b: Candidate) -> Bool {
            a.weight == b.weight ? a.id < b.id : a.weight > b.weight
        }
        var heap = candidates
        func siftDown(_ start: Int, _ end: Int) {
            var parent = start
            while true {
                var child = 2 * parent + 1
                guard child < end else { return }
                if child + 1 < end, precedes(heap[child + 1], heap[child]) { child += 1 }
                guard precedes(heap[child], heap[parent]) else { return }
                heap.swapAt(parent, child)
                parent = child
            }
        }
        for start in stride(from: heap.count / 2 - 1, through: 0, by: -1) {
            siftDown(start, heap.count)
        }
        var result: [Candidate] = []
        var end = heap.count
        while result.count < count, end > 0 {
            result.append(heap[0])
            end -= 1
            heap.swapAt(0, end)
            siftDown(0, end)
        }
        return result
    }
}
