import LorryTensor

/// Reads log-probabilities off a row of logits.
package struct LogprobReader {
    private let logits: UnsafeBufferPointer<Float>
    private let normalizer: Float

    /// - Parameter logits: `[vocabularySize]`, as the model gave them.
    package init(_ logits: UnsafeBufferPointer<Float>) {
        self.logits = logits
        normalizer = logits.baseAddress.map { logSumExp($0, count: logits.count) } ?? 0
    }

    /// - Parameter topCount: how many of the most probable tokens to list.
    package func logprobs(of token: Int32, topCount: Int) -> TokenLogprobs {
        let logit = logits[Int(token)]
        var rank = 1
        for other in logits where other > logit { rank += 1 }
        return TokenLogprobs(
            logprob: logit - normalizer, rank: rank,
            top: top(topCount).map { .init(id: $0, logprob: logits[Int($0)] - normalizer) })
    }

    /// The ids of the greatest logits, greatest first; equals in the order of their ids.
    ///
    /// - Complexity: O(n · count) at worst, O(n) in practice: most logits fail the first comparison.
    private func top(_ count: Int) -> [Int32] {
        guard count > 0 else { return [] }
        var ids: [Int32] = []
        for (index, logit) in logits.enumerated() {
            if ids.count == count, logit <= logits[Int(ids[count - 1])] { continue }
            var place = ids.count
            while place > 0, logits[Int(ids[place - 1])] < logit { place -= 1 }
            ids.insert(Int32(index), at: place)
            if ids.count > count { ids.removeLast() }
        }
        return ids
    }
}
