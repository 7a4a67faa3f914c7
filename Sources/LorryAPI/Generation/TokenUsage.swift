import LorryRegistry

/// The `usage` object: tokens that a request took and gave.
struct TokenUsage: Sendable, Equatable {
    var promptTokenCount = 0
    var completionTokenCount = 0
    /// Prompt tokens that the prefix cache had.
    var cachedTokenCount = 0

    var totalTokenCount: Int { promptTokenCount + completionTokenCount }

    /// As one request.
    var counts: UsageCounts {
        var counts = UsageCounts()
        counts.requestCount = 1
        counts.promptTokenCount = promptTokenCount
        counts.completionTokenCount = completionTokenCount
        counts.cachedTokenCount = cachedTokenCount
        return counts
    }

    mutating func add(_ finish: AnswerFinish) {
        completionTokenCount += finish.completionTokenCount
    }

    var json: JSON {
        [
            "prompt_tokens": .integer(promptTokenCount),
            "total_tokens": .integer(totalTokenCount),
            "completion_tokens": .integer(completionTokenCount),
            "prompt_tokens_details": ["cached_tokens": .integer(cachedTokenCount)],
        ]
    }
}
