import LorryEngine
import LorryModel
import LorryText

/// The body of llama.cpp's `POST /completion`, read and checked.
struct LlamaCppRequest: Sendable {
    var fields = defaults
    let prompts: [PromptSource]
    /// Nil for no probabilities.
    let logprobCount: Int?
    let returnsTokens: Bool

    /// llama.cpp's own.
    static let defaults: GenerationFields = {
        var fields = GenerationFields()
        fields.sampling.temperature = 0.8
        fields.sampling.topK = 40
        fields.sampling.topP = 0.95
        fields.sampling.minP = 0.05
        return fields
    }()

    init(
        _ reader: FieldReader, _ tokenizer: Tokenizer, vocabularySize: Int
    ) throws(APIError) {
        try Self.refuseUnsupported(reader)
        prompts = try Self.prompts(reader, vocabularySize: vocabularySize)
        let counts = 0...GenerationFields.maximumLogprobCount
        let count = try reader.integer(
            "n_probs", in: counts, "between 0 and \(counts.upperBound)")
        logprobCount = count == 0 ? nil : count
        returnsTokens = try reader.bool("return_tokens") ?? false
        try readSampling(reader)
        try readPenalties(reader)
        fields.sampling.logitBias = try Self.logitBias(
            reader, tokenizer, vocabularySize: vocabularySize)
        try readCounts(reader)
        fields.streams = try reader.bool("stream") ?? false
        fields.ignoresEndTokens = try reader.bool("ignore_eos") ?? false
        fields.stopStrings = try Self.stops(reader)
    }

    private static func refuseUnsupported(_ reader: FieldReader) throws(APIError) {
        try reader.refuse(["grammar", "json_schema", "samplers", "image_data", "response_format"])
        try reader.refuse(
            [
                "mirostat", "dynatemp_range", "dry_multiplier", "xtc_probability", "n_indent",
                "t_max_predict_ms", "min_keep", "post_sampling_probs",
            ], zeroIsOff: true)
        for name in ["top_n_sigma", "adaptive_target"] {
            if let value = try reader.number(name, "a number", { _ in true }), value > 0 {
                throw reader.fail(name, "is not supported.")
            }
        }
    }

    private mutating func readSampling(_ reader: FieldReader) throws(APIError) {
        if let x = try reader.number("temperature", "a number", { _ in true }) {
            // 0 and less mean greedy; so does what a Float cannot divide by.
            fields.sampling.temperature = x < 1e-5 ? 0 : x
        }
        if let k = try reader.integer("top_k") { fields.sampling.topK = max(k, 0) }
        let isShare = { (x: Double) in x > 0 }
        if let x = try reader.number("top_p", "greater than 0", isShare) {
            fields.sampling.topP = min(x, 1)
        }
        if let x = try reader.number("typical_p", "greater than 0", isShare) {
            fields.sampling.typicalP = min(x, 1)
        }
        if let x = try reader.number("min_p", "at most 1", { $0 <= 1 }) {
            fields.sampling.minP = max(x, 0)
        }
        if let seed = try reader.integer("seed"), seed >= 0, seed != Int(UInt32.max) {
            fields.sampling.seed = UInt64(seed)
        }
    }

    /// The penalties look at the whole prompt and answer, which is what `repeat_last_n` -1 means.
    private mutating func readPenalties(_ reader: FieldReader) throws(APIError) {
        let last = try reader.integer("repeat_last_n", in: -1...Int.max, "at least -1")
        var sampling = fields.sampling
        if let x = try reader.number("repeat_penalty", "greater than 0", { $0 > 0 }) {
            sampling.repetitionPenalty = x
        }
        if let x = try reader.number("presence_penalty", "a number", { _ in true }) {
            sampling.presencePenalty = x
        }
        if let x = try reader.number("frequency_penalty", "a number", { _ in true }) {
            sampling.frequencyPenalty = x
        }
        if last == 0 { return }
        let isOn =
            sampling.repetitionPenalty != 1 || sampling.presencePenalty != 0
            || sampling.frequencyPenalty != 0
        if let last, last > 0, isOn {
            throw reader.fail(
                "repeat_last_n", "may be -1 or 0: penalties look at everything, or at nothing.")
        }
        fields.sampling = sampling
    }

    private mutating func readCounts(_ reader: FieldReader) throws(APIError) {
        let range = -2...Int.max
        var wanted = try reader.integer("max_tokens", in: range, "at least -2")
        if let own = try reader.integer("n_predict", in: range, "at least -2") { wanted = own }
        // -1 and -2 go on until the context is full.
        fields.maximumTokenCount = wanted.flatMap { $0 < 0 ? nil : $0 }
        let counts = 1...GenerationFields.maximumAnswerCount
        let words = "between 1 and \(counts.upperBound)"
        let openAIs = try reader.integer("n", in: counts, words) ?? 1
        fields.answerCount = try reader.integer("n_cmpl", in: counts, words) ?? openAIs
        fields.candidateCount = fields.answerCount
    }

    /// Empty ones are left out, as llama.cpp does.
    private static func stops(_ reader: FieldReader) throws(APIError) -> [String] {
        guard let value = reader.value("stop") else { return [] }
        var stops: [String] = []
        for string in value.arrayValue ?? [value] {
            guard let text = string.stringValue else {
                throw reader.fail("stop", "must be an array of strings.")
            }
            if !text.isEmpty { stops.append(text) }
        }
        guard stops.count <= GenerationFields.maximumStopStringCount else {
            throw reader.fail(
                "stop",
                "may hold \(GenerationFields.maximumStopStringCount) strings, got \(stops.count).")
        }
        return stops
    }
}

// MARK: - Prompts

extension LlamaCppRequest {
    private static let promptShapes =
        "must be a string, token ids, a mixture of both, or an array of prompts."

    private static func prompts(
        _ reader: FieldReader, vocabularySize: Int
    ) throws(APIError) -> [PromptSource] {
        guard let value = reader.value("prompt") else {
            throw reader.fail("prompt", "is required and \(promptShapes)")
        }
        if let prompt = try prompt(value, reader, vocabularySize) { return [prompt] }
        guard let values = value.arrayValue, !values.isEmpty else {
            throw reader.fail("prompt", promptShapes)
        }
        try GenerationOrder.checkPromptCount(values.count, "prompt", reader)
        var prompts: [PromptSource] = []
        for value in values {
            guard let prompt = try prompt(value, reader, vocabularySize) else {
                throw reader.fail("prompt", promptShapes)
            }
            prompts.append(prompt)
        }
        return prompts
    }

    /// Nil for what is no single prompt, such as an array of texts.
    private static func prompt(
        _ value: StrictJSON, _ reader: FieldReader, _ vocabularySize: Int
    ) throws(APIError) -> PromptSource? {
        if let text = value.stringValue { return .text(text) }
        if let object = value.objectValue {
            let fields = FieldReader(object: object, path: "\(reader.path)prompt.")
            try fields.refuse(["multimodal_data"])
            guard let text = try fields.string("prompt_string") else {
                throw fields.fail("prompt_string", "is required.")
            }
            return .text(text)
        }
        guard let values = value.arrayValue,
            values.contains(where: { if case .integer = $0 { true } else { false } })
        else { return nil }
        var parts: [PromptSource.Part] = []
        for value in values {
            if let text = value.stringValue {
                parts.append(.text(text))
            } else if value.arrayValue == nil, value.objectValue == nil {
                let ids = try reader.tokenIDs([value], "prompt", vocabularySize: vocabularySize)
                parts += ids.map { .token($0) }
            } else {
                return nil
            }
        }
        let ids = parts.compactMap { if case .token(let id) = $0 { id } else { nil } }
        return ids.count == parts.count ? .tokens(ids) : .mixed(parts)
    }
}

// MARK: - Logit bias

extension LlamaCppRequest {
    /// Of all texts together: they are tokenized at once, where the body is read.
    private static let maximumBiasTextByteCount = 16 << 10

    /// `[[id or text, number or false], …]` or `{"id or text": number or false, …}`, where false is
    /// never.
    private static func logitBias(
        _ reader: FieldReader, _ tokenizer: Tokenizer, vocabularySize: Int
    ) throws(APIError) -> [Int32: Float] {
        guard let value = reader.value("logit_bias") else { return [:] }
        var pairs: [(StrictJSON, StrictJSON)] = []
        if let object = value.objectValue {
            pairs = object.members.map { key, value in
                (Int(key).map { .integer($0) } ?? .string(key), value)
            }
        } else {
            for pair in value.arrayValue ?? [.null] {
                guard let pair = pair.arrayValue, pair.count == 2 else {
                    throw reader.fail("logit_bias", "must be an object or an array of pairs.")
                }
                pairs.append((pair[0], pair[1]))
            }
        }
        let byteCount = pairs.reduce(0) { $0 + ($1.0.stringValue?.utf8.count ?? 0) }
        guard byteCount <= maximumBiasTextByteCount else {
            throw reader.fail(
                "logit_bias",
                "may hold texts of at most \(maximumBiasTextByteCount) bytes together.")
        }
        var bias: [Int32: Float] = [:]
        for (token, value) in pairs {
            let number =
                value.boolValue == false ? -Float.infinity : value.numberValue.map { Float($0) }
            guard let number, number.isFinite || value.boolValue == false else {
                throw reader.fail("logit_bias", "must have numbers or false as biases.")
            }
            for id in try ids(token, reader, tokenizer, vocabularySize) {
                bias[id, default: 0] += number
            }
        }
        return bias
    }

    private static func ids(
        _ token: StrictJSON, _ reader: FieldReader, _ tokenizer: Tokenizer, _ vocabularySize: Int
    ) throws(APIError) -> [Int32] {
        guard let text = token.stringValue else {
            return try reader.tokenIDs([token], "logit_bias", vocabularySize: vocabularySize)
        }
        return tokenizer.encode(text, addSpecialTokens: false)
    }
}
