/// What a `tokenizer.json` describes, read and checked.
struct TokenizerParts {
    var model: BytePairModel
    var addedTokens: [AddedToken]
    var normalizer: Normalizer?
    var preTokenizer: PreTokenizer?
    var postProcessor: PostProcessor?
    var decoder: [DecoderStep]

    /// - Throws: `TokenizerError` naming the part of the file.
    init(json: [UInt8]) throws(TokenizerError) {
        var sections: [String: Int] = [:]
        do {
            var scanner = JSONScanner(json)
            try scanner.readObject { (scanner, key) throws(JSONError) in
                _ = scanner.peek()
                sections[String(decoding: key, as: UTF8.self)] = scanner.index
                try scanner.skipValue()
            }
            try scanner.expectEnd()
        } catch {
            throw .invalid("tokenizer.json: \(error)")
        }
        func section(_ name: String) throws(TokenizerError) -> JSONValue? {
            guard let start = sections[name] else { return nil }
            do {
                var scanner = JSONScanner(json, at: start)
                let value = try scanner.readValue()
                return value.isNull ? nil : value
            } catch {
                throw .invalid("tokenizer.json: \(name): \(error)")
            }
        }
        if let version = try section("version")?.string, version != "1.0" {
            throw .unsupported("tokenizer.json: version \(version) is not supported")
        }
        guard let modelStart = sections["model"] else {
            throw .invalid("tokenizer.json: there is no model")
        }
        model = try BytePairModelReader.read(json, at: modelStart)
        addedTokens = try Self.readAddedTokens(try section("added_tokens"))
        normalizer = try section("normalizer").map(NormalizerReader.read)
        preTokenizer = try section("pre_tokenizer").map(PreTokenizerReader.read)
        postProcessor = try section("post_processor").map(PostProcessorReader.read)
        decoder = try section("decoder").map(DecoderReader.read) ?? [.join]
    }

    private static func readAddedTokens(
        _ value: JSONValue?
    ) throws(TokenizerError) -> [AddedToken] {
        guard let value else { return [] }
        guard let list = value.array else {
            throw .invalid("tokenizer.json: added_tokens is not a list")
        }
        var tokens: [AddedToken] = []
        for entry in list {
            guard let content = entry["content"]?.string else {
                throw .invalid("tokenizer.json: an added token has no content")
            }
            tokens.append(
                AddedToken(
                    id: 0, content: Array(content.utf8),
                    isSingleWord: entry["single_word"]?.bool ?? false,
                    stripsLeft: entry["lstrip"]?.bool ?? false,
                    stripsRight: entry["rstrip"]?.bool ?? false,
                    isNormalized: entry["normalized"]?.bool ?? true,
                    isSpecial: entry["special"]?.bool ?? false))
        }
        return tokens
    }
}

/// Fields of a part of `tokenizer.json`, with errors that name the part.
struct PartFields {
    let part: String
    let value: JSONValue

    var type: String {
        value["type"]?.string ?? ""
    }

    func unsupportedType() -> TokenizerError {
        type.isEmpty
            ? .invalid("tokenizer.json: \(part) has no type")
            : .unsupported("tokenizer.json: the \(part) \(type) is not supported")
    }

    func bool(_ key: String, default fallback: Bool) throws(TokenizerError) -> Bool {
        guard let field = value[key], !field.isNull else { return fallback }
        guard let bool = field.bool else { throw bad(key) }
        return bool
    }

    func string(_ key: String) throws(TokenizerError) -> String {
        guard let string = value[key]?.string else { throw bad(key) }
        return string
    }

    func bytes(_ key: String) throws(TokenizerError) -> [UInt8] {
        Array(try string(key).utf8)
    }

    func scalar(_ key: String) throws(TokenizerError) -> Unicode.Scalar {
        let scalars = try string(key).unicodeScalars
        guard let first = scalars.first, scalars.count == 1 else { throw bad(key) }
        return first
    }

    func count(_ key: String) throws(TokenizerError) -> Int {
        guard let count = value[key]?.integer, count >= 0 else { throw bad(key) }
        return count
    }

    /// The parts of a `Sequence`. Nesting was bounded when the file was parsed.
    func list(_ key: String) throws(TokenizerError) -> [JSONValue] {
        guard let list = value[key]?.array else { throw bad(key) }
        return list
    }

    enum Pattern {
        case text([UInt8])
        case pattern(RegexPattern)
    }

    func pattern() throws(TokenizerError) -> Pattern {
        if let text = value["pattern"]?["String"]?.string { return .text(Array(text.utf8)) }
        if let regex = value["pattern"]?["Regex"]?.string {
            return .pattern(try RegexPattern(regex))
        }
        throw bad("pattern")
    }

    func bad(_ key: String) -> TokenizerError {
        .invalid("tokenizer.json: \(part) \(type): \(key) is missing or has a wrong value")
    }
}
