import LorryModel

/// The body of `POST /v1/completions`, read and checked.
struct CompletionRequest: Sendable {
    let fields: GenerationFields
    let prompts: [PromptSource]
    let echoes: Bool
    /// Alternatives per token; nil for no log-probabilities.
    let logprobCount: Int?
    let addsSpecialTokens: Bool

    static let defaultMaximumTokenCount = 16

    init(_ reader: FieldReader, vocabularySize: Int) throws(APIError) {
        var fields = try GenerationFields(reader, vocabularySize: vocabularySize)
        fields.maximumTokenCount = try reader.integer(
            "max_tokens", in: 0...Int.max, "at least 0")
        let logprobs = 0...GenerationFields.maximumLogprobCount
        logprobCount = try reader.integer(
            "logprobs", in: logprobs, "between 0 and \(logprobs.upperBound)")
        echoes = try reader.bool("echo") ?? false
        addsSpecialTokens = try reader.bool("add_special_tokens") ?? true
        prompts = try Self.prompts(reader, vocabularySize: vocabularySize)
        self.fields = fields
    }

    private static func prompts(
        _ reader: FieldReader, vocabularySize: Int
    ) throws(APIError) -> [PromptSource] {
        let shape =
            "must be a string, an array of strings, an array of token ids, or an array of arrays "
            + "of token ids."
        guard let value = reader.value("prompt") else {
            throw reader.fail("prompt", "is required and \(shape)")
        }
        if let text = value.stringValue { return [.text(text)] }
        guard let values = value.arrayValue else { throw reader.fail("prompt", shape) }
        guard let first = values.first else { throw reader.fail("prompt", "cannot be empty.") }
        if first.integerValue != nil {
            return [.tokens(try reader.tokenIDs(values, "prompt", vocabularySize: vocabularySize))]
        }
        try GenerationOrder.checkPromptCount(values.count, "prompt", reader)
        var prompts: [PromptSource] = []
        for value in values {
            if first.stringValue != nil, let text = value.stringValue {
                prompts.append(.text(text))
            } else if first.arrayValue != nil, let ids = value.arrayValue {
                guard !ids.isEmpty else { throw reader.fail("prompt", "holds an empty array.") }
                prompts.append(
                    .tokens(try reader.tokenIDs(ids, "prompt", vocabularySize: vocabularySize)))
            } else {
                throw reader.fail("prompt", shape)
            }
        }
        return prompts
    }
}
