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
    private var edits = LogitEdits()
    private var filter: CandidateFilter

    package init(_ request: GenerationRequest, endTokens: Set<Int32> = []) {
        parameters = request.sampling
        seed = request.sampling.seed ?? .random(in: .min ... .max)
        bannedEarly = endTokens
        minimumTokenCount = request.minimumTokenCount
        promptTokens = request.sampling.repetitionPenalty == 1 ? [] : Set(request.promptTokens)
        filter = CandidateFilter(request.sampling)
    }

    /// Below this the most probable token is taken: dividing by it would overflow (vLLM's bound).
    private static let greedyTemperature: Float = 1e-5

    /// - Parameters:
    ///   - logits: `[count]`; single ones are changed meanwhile, and all are back on return.
    ///   - level: of the kernels that read the logits.
    package mutating func sample(
        _ logits: UnsafeMutableBufferPointer<Float>, level: KernelLevel = Kernels.level
    ) -> Int32 {
        guard let start = logits.baseAddress else { return 0 }
        adjust(logits)
        let token: Int32
        if parameters.temperature >= Self.greedyTemperature {
            token = filter.draw(
                from: logits, edits: &edits, uniform: nextUniform(), level: level)
        } else {
            token = Int32(argmax(UnsafePointer(start), count: logits.count, level: level))
        }
        edits.undo(in: logits)
        generatedCount += 1
        if hasPenalties { answerCounts[token, default: 0] += 1 }
        return token
    }

    private var hasPenalties: Bool {
        parameters.repetitionPenalty != 1 || parameters.frequencyPenalty != 0
            || parameters.presencePenalty != 0
    }

    private mutating func adjust(_ logits: UnsafeMutableBufferPointer<Float>) {
        for (token, bias) in parameters.logitBias where logits.indices.contains(Int(token)) {
            edits.set(token, logits[Int(token)] + bias, in: logits)
        }
        if generatedCount < minimumTokenCount {
            for token in bannedEarly where logits.indices.contains(Int(token)) {
                edits.set(token, -.infinity, in: logits)
            }
        }
        guard hasPenalties else { return }
        if parameters.repetitionPenalty != 1 {
            for token in promptTokens { penalizeRepetition(of: token, logits) }
            for token in answerCounts.keys where !promptTokens.contains(token) {
                penalizeRepetition(of: token, logits)
            }
        }
        for (token, count) in answerCounts {
            let penalty = Float(count) * parameters.frequencyPenalty + parameters.presencePenalty
            edits.set(token, logits[Int(token)] - penalty, in: logits)
        }
    }

    private mutating func penalizeRepetition(
        of token: Int32, _ logits: UnsafeMutableBufferPointer<Float>
    ) {
        let logit = logits[Int(token)]
        let penalty = parameters.repetitionPenalty
        edits.set(token, logit > 0 ? logit / penalty : logit * penalty, in: logits)
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

/// Changes of single logits, to be undone: a copy of the row would cost more than sampling from it.
package struct LogitEdits {
    private var previous: [(token: Int32, logit: Float)] = []

    package init() {}

    package mutating func set(
        _ token: Int32, _ logit: Float, in logits: UnsafeMutableBufferPointer<Float>
    ) {
        previous.append((token, logits[Int(token)]))
        logits[Int(token)] = logit
    }

    package mutating func undo(in logits: UnsafeMutableBufferPointer<Float>) {
        while let edit = previous.popLast() { logits[Int(edit.token)] = edit.logit }
    }
}
