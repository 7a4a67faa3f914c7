import LorryTensor

/// Reads log-probabilities off a row of logits.
package struct LogprobReader {
    private let logits: UnsafeBufferPointer<Float>
    private let level: KernelLevel
    private let normalizer: Float

    /// - Parameter logits: `[vocabularySize]`, as the model gave them.
    package init(_ logits: UnsafeBufferPointer<Float>, level: KernelLevel = Kernels.level) {
        self.logits = logits
        self.level = level
        normalizer =
            logits.baseAddress.map { logSumExp($0, count: logits.count, level: level) } ?? 0
    }

    /// - Parameters:
    ///   - topCount: how many of the most probable tokens to list; those that the model
    ///     rules out (a logit of -infinity) are left out.
    ///   - greatest: memory to find them with.
    package func logprobs(
        of token: Int32, topCount: Int, using greatest: inout GreatestLogits
    ) -> TokenLogprobs {
        let logit = logits[Int(token)]
        greatest.find(topCount, in: logits, level: level)
        return TokenLogprobs(
            logprob: logit - normalizer, rank: 1 + count(above: logit, in: logits, level: level),
            top: greatest.entries.map { .init(id: $0.id, logprob: $0.logit - normalizer) })
    }
}
