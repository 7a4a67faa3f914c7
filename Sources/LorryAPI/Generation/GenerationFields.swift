import LorryEngine
import LorryModel

/// The fields that completions and chat completions have in common, read and checked.
struct GenerationFields: Sendable {
    var sampling = SamplingParameters()
    /// Nil leaves the route's default.
    var maximumTokenCount: Int?
    var minimumTokenCount = 0
    var ignoresEndTokens = false
    var stopTokenIDs: Set<Int32> = []
    var stopStrings: [String] = []
    var includesStopString = false
    var skipsSpecialTokens = true
    /// How many answers each prompt gets.
    var answerCount = 1
    /// How many are generated, from which the best `answerCount` are taken.
    var candidateCount = 1
    var priority = 0
    var cacheSalt = ""
    var streams = false
    var includesUsage = false
    /// Adds the usage so far to every chunk.
    var continuousUsage = false
    var returnsTokenIDs = false
    var namesTokensByID = false

    static let maximumAnswerCount = 128
    static let maximumStopStringCount = 16
    static let maximumLogprobCount = 20
    static let maximumCacheSaltByteCount = 256

    init() {}

    init(_ fields: FieldReader, vocabularySize: Int) throws(APIError) {
        try Self.refuseUnsupported(fields)
        sampling = try Self.sampling(fields, vocabularySize: vocabularySize)
        try readStops(fields, vocabularySize: vocabularySize)
        try readCounts(fields)
        try readStreaming(fields)
        ignoresEndTokens = try fields.bool("ignore_eos") ?? false
        skipsSpecialTokens = try fields.bool("skip_special_tokens") ?? true
        priority = try fields.integer("priority") ?? 0
        cacheSalt = try Self.cacheSalt(fields)
        returnsTokenIDs = try fields.bool("return_token_ids") ?? false
        namesTokensByID = try fields.bool("return_tokens_as_token_ids") ?? false
        _ = try fields.string("user")
    }

    private static func sampling(
        _ fields: FieldReader, vocabularySize: Int
    ) throws(APIError) -> SamplingParameters {
        var sampling = SamplingParameters()
        let isShare = { (x: Double) in x > 0 && x <= 1 }
        let isPenalty = { (x: Double) in x >= -2 && x <= 2 }
        if let x = try fields.number("temperature", "non-negative", { $0 >= 0 }) {
            // Below this, logits divided by it leave the range of a Float; vLLM does so too.
            sampling.temperature = x < 1e-5 ? 0 : x
        }
        if let x = try fields.number("top_p", "in (0, 1]", isShare) { sampling.topP = x }
        if let x = try fields.number("min_p", "in [0, 1]", { $0 >= 0 && $0 <= 1 }) {
            sampling.minP = x
        }
        if let x = try fields.number("typical_p", "in (0, 1]", isShare) { sampling.typicalP = x }
        if let x = try fields.number("repetition_penalty", "greater than zero", { $0 > 0 }) {
            sampling.repetitionPenalty = x
        }
        if let x = try fields.number("presence_penalty", "in [-2, 2]", isPenalty) {
            sampling.presencePenalty = x
        }
        if let x = try fields.number("frequency_penalty", "in [-2, 2]", isPenalty) {
            sampling.frequencyPenalty = x
        }
        let requirement = "-1 or 0 (which keep all tokens), or at least 1"
        if let k = try fields.integer("top_k", in: -1...Int.max, requirement) {
            sampling.topK = max(k, 0)
        }
        if let seed = try fields.integer("seed") {
            sampling.seed = UInt64(bitPattern: Int64(seed))
        }
        sampling.logitBias = try logitBias(fields, vocabularySize: vocabularySize)
        return sampling
    }

    /// vLLM's field. It is kept as long as anything is cached under it, so it may not be long.
    private static func cacheSalt(_ fields: FieldReader) throws(APIError) -> String {
        guard let salt = try fields.string("cache_salt") else { return "" }
        guard (1...maximumCacheSaltByteCount).contains(salt.utf8.count) else {
            throw fields.fail(
                "cache_salt", "must have 1 to \(maximumCacheSaltByteCount) bytes, if it is given.")
        }
        return salt
    }

    private static func logitBias(
        _ fields: FieldReader, vocabularySize: Int
    ) throws(APIError) -> [Int32: Float] {
        guard let entries = try fields.fields("logit_bias") else { return [:] }
        var bias: [Int32: Float] = [:]
        for (key, _) in entries.object.members {
            guard let id = Int32(key), id >= 0, id < vocabularySize else {
                throw fields.fail(
                    "logit_bias",
                    "has the key '\(key)', which is no token id of the vocabulary of "
                        + "\(vocabularySize) tokens.")
            }
            bias[id] = try entries.number(key, "in [-100, 100]", { abs($0) <= 100 })
        }
        return bias
    }

    private mutating func readStops(
        _ fields: FieldReader, vocabularySize: Int
    ) throws(APIError) {
        if let value = fields.value("stop") {
            let strings: [StrictJSON] = value.arrayValue ?? [value]
            guard strings.count <= Self.maximumStopStringCount else {
                throw fields.fail(
                    "stop", "may hold \(Self.maximumStopStringCount) strings, got \(strings.count)."
                )
            }
            for string in strings {
                guard let text = string.stringValue else {
                    throw fields.fail("stop", "must be a string or an array of strings.")
                }
                guard !text.isEmpty else {
                    throw fields.fail("stop", "cannot contain an empty string.")
                }
                stopStrings.append(text)
            }
        }
        let ids = try fields.tokenIDs("stop_token_ids", vocabularySize: vocabularySize)
        stopTokenIDs = Set(ids ?? [])
        includesStopString = try fields.bool("include_stop_str_in_output") ?? false
    }

    private mutating func readCounts(_ fields: FieldReader) throws(APIError) {
        minimumTokenCount =
            try fields.integer("min_tokens", in: 0...Int.max, "greater than or equal to 0") ?? 0
        let counts = 1...Self.maximumAnswerCount
        let range = "between 1 and \(Self.maximumAnswerCount)"
        answerCount = try fields.integer("n", in: counts, range) ?? 1
        candidateCount = try fields.integer("best_of", in: counts, range) ?? answerCount
        guard candidateCount >= answerCount else {
            throw fields.fail(
                "best_of",
                "must be greater than or equal to n, got n=\(answerCount) and "
                    + "best_of=\(candidateCount).")
        }
    }

    private mutating func readStreaming(_ fields: FieldReader) throws(APIError) {
        streams = try fields.bool("stream") ?? false
        if let options = try fields.fields("stream_options") {
            guard streams else {
                throw fields.fail("stream_options", "can only be set when stream is true.")
            }
            includesUsage = try options.bool("include_usage") ?? false
            continuousUsage = try options.bool("continuous_usage_stats") ?? false
        }
        guard !streams || candidateCount == answerCount else {
            throw fields.fail("best_of", "must equal n when stream is true.")
        }
    }

    /// `min_tokens` against the bound that `max_tokens` and its default gave.
    func checkMinimum(against maximum: Int) throws(APIError) {
        guard minimumTokenCount <= maximum else {
            throw .invalid(
                "min_tokens",
                "min_tokens must be less than or equal to max_tokens=\(maximum), got "
                    + "\(minimumTokenCount).")
        }
    }

    /// Fields of OpenAI's and vLLM's.
    private static func refuseUnsupported(_ fields: FieldReader) throws(APIError) {
        try fields.refuse([
            "suffix", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
            "structured_outputs", "bad_words", "allowed_token_ids", "truncate_prompt_tokens",
            "prompt_embeds", "prompt_logprobs", "functions", "audio",
        ])
        if try fields.bool("use_beam_search") == true {
            throw fields.fail("use_beam_search", "is not supported.")
        }
        guard let format = try fields.fields("response_format") else { return }
        switch try format.string("type") {
        case "text": return
        case "json_object", "json_schema", "structural_tag", "grammar":
            throw format.fail("type", "may only be 'text': constrained output is not supported.")
        default: throw format.fail("type", "must be 'text', 'json_object' or 'json_schema'.")
        }
    }
}
