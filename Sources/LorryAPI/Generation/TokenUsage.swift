/// The `usage` object: tokens that a request took and gave.
struct TokenUsage: Sendable, Equatable {
    var promptTokenCount = 0
    var completionTokenCount = 0
    /// Prompt tokens that the prefix cache had.
    var cachedTokenCount = 0

    mutating func add(_ finish: AnswerFinish) {
        completionTokenCount += finish.completionTokenCount
    }

    var json: JSON {
        [
            "prompt_tokens": .integer(promptTokenCount),
            "total_tokens": .integer(promptTokenCount + completionTokenCount),
            "completion_tokens": .integer(completionTokenCount),
            "prompt_tokens_details": ["cached_tokens": .integer(cachedTokenCount)],
        ]
    }
}
