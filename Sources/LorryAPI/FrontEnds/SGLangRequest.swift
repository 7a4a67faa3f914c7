import LorryEngine
import LorryModel

/// The body of SGLang's `POST /generate`, read and checked.
struct SGLangRequest: Sendable {
    /// The prompts as they are written, before it is known which model reads them.
    struct Input: Sendable {
        /// `text` or `input_ids`.
        let field: String
        let values: [StrictJSON]
        /// Answers come in an array.
        let isBatch: Bool

        init(_ reader: FieldReader) throws(APIError) {
            try reader.refuse(["input_embeds", "image_data", "video_data", "audio_data"])
            switch (reader.value("text"), reader.value("input_ids")) {
            case (let text?, nil):
                field = "text"
                isBatch = text.arrayValue != nil
                values = text.arrayValue ?? [text]
            case (nil, let ids?):
                field = "input_ids"
                isBatch = ids.arrayValue?.first?.arrayValue != nil
                values = isBatch ? ids.arrayValue ?? [] : [ids]
            case (nil, nil):
                throw reader.fail("text", "or input_ids is required.")
            default: throw reader.fail("input_ids", "cannot be given beside text.")
            }
            guard !values.isEmpty else { throw reader.fail(field, "cannot be empty.") }
        }
    }

    let fields: GenerationFields
    var sources: [PromptSource] = []
    var isBatch = false
    /// Alternatives per token; nil for no log-probabilities.
    var logprobCount: Int?
    /// From which of the prompt's tokens on log-probabilities are told; nil for none of them.
    var logprobStart: Int?
    var namesTokens = false
    /// The client's name of each prompt.
    var ids: [String] = []

    static let defaultMaximumTokenCount = 128

    /// Without any of a body's choices.
    init(_ fields: GenerationFields) { self.fields = fields }

    init(_ reader: FieldReader, _ input: Input, vocabularySize: Int) throws(APIError) {
        try reader.refuse(["token_ids_logprob", "custom_logit_processor", "session_params"])
        try reader.refuse(["return_hidden_states"], zeroIsOff: true)
        fields = try Self.fields(reader, vocabularySize: vocabularySize)
        for value in input.values {
            sources.append(try Self.source(value, reader, input, vocabularySize))
        }
        isBatch = input.isBatch
        try readLogprobs(reader)
        namesTokens = try reader.bool("return_text_in_logprobs") ?? false
        ids = try Self.ids(reader, count: sources.count)
    }

    private static func fields(
        _ reader: FieldReader, vocabularySize: Int
    ) throws(APIError) -> GenerationFields {
        let sampling = try reader.fields("sampling_params") ?? FieldReader(object: .empty)
        try sampling.refuse([
            "json_schema", "regex", "ebnf", "structural_tag", "stop_regex", "custom_params",
        ])
        var fields = try GenerationFields(sampling, vocabularySize: vocabularySize)
        fields.maximumTokenCount = try sampling.integer(
            "max_new_tokens", in: 0...Int.max, "at least 0")
        fields.minimumTokenCount =
            try sampling.integer("min_new_tokens", in: 0...Int.max, "at least 0") ?? 0
        fields.includesStopString = try sampling.bool("no_stop_trim") ?? false
        if let seed = try sampling.integer("sampling_seed") {
            fields.sampling.seed = UInt64(bitPattern: Int64(seed))
        }
        // These are the request's own here.
        fields.candidateCount = fields.answerCount
        fields.streams = try reader.bool("stream") ?? false
        fields.priority = try reader.integer("priority") ?? 0
        return fields
    }

    private static func source(
        _ value: StrictJSON, _ reader: FieldReader, _ input: Input, _ vocabularySize: Int
    ) throws(APIError) -> PromptSource {
        if input.field == "text" {
            guard let text = value.stringValue else {
                throw reader.fail("text", "must be a string or an array of strings.")
            }
            return .text(text)
        }
        guard let ids = value.arrayValue else {
            throw reader.fail("input_ids", "must be an array of token ids, or an array of those.")
        }
        return .tokens(
            try reader.tokenIDs(ids, "input_ids", vocabularySize: vocabularySize))
    }

    private mutating func readLogprobs(_ reader: FieldReader) throws(APIError) {
        let counts = 0...GenerationFields.maximumLogprobCount
        let top = try reader.integer(
            "top_logprobs_num", in: counts, "between 0 and \(counts.upperBound)")
        let start = try reader.integer("logprob_start_len", in: -1...Int.max, "at least -1")
        guard try reader.bool("return_logprob") ?? false else { return }
        logprobCount = top ?? 0
        logprobStart = start == -1 ? nil : start
    }

    private static func ids(_ reader: FieldReader, count: Int) throws(APIError) -> [String] {
        guard let value = reader.value("rid") else { return [] }
        var ids: [String] = []
        for value in value.arrayValue ?? [value] {
            guard let id = value.stringValue else {
                throw reader.fail("rid", "must be a string or an array of strings.")
            }
            ids.append(id)
        }
        guard ids.count == count else {
            throw reader.fail("rid", "must have one id for each prompt, got \(ids.count).")
        }
        return ids
    }

    /// Which model each prompt runs on: `lora_path`, one for all or one for each, where null is the
    /// base model.
    static func choices(
        _ reader: FieldReader, count: Int
    ) throws(APIError) -> [ModelSelection.Choice] {
        var base = ModelSelection.Choice.base
        if let model = try reader.string("model"), !model.isEmpty { base = .named(model) }
        guard let value = reader.value("lora_path") else {
            return Array(repeating: base, count: count)
        }
        var choices: [ModelSelection.Choice] = []
        let paths = value.arrayValue ?? Array(repeating: value, count: count)
        for path in paths {
            guard path.isNull || path.stringValue != nil else {
                throw reader.fail("lora_path", "must be a name, or an array of names and nulls.")
            }
            choices.append(path.stringValue.map { .adapter($0) } ?? base)
        }
        guard choices.count == count else {
            throw reader.fail(
                "lora_path",
                "must have one entry for each of \(count) prompts, got \(choices.count).")
        }
        return choices
    }
}
