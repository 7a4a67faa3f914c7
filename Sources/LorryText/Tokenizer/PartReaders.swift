enum NormalizerReader {
    static func read(_ value: JSONValue) throws(TokenizerError) -> Normalizer {
        let part = PartFields(part: "normalizer", value: value)
        switch part.type {
        case "Sequence":
            var steps: [Normalizer] = []
            for step in try part.list("normalizers") { steps.append(try read(step)) }
            return .sequence(steps)
        case "Prepend": return .prepend(try part.bytes("prepend"))
        case "Replace":
            let content = try part.bytes("content")
            switch try part.pattern() {
            case .text(let text): return .replaceText(text, with: content)
            case .pattern(let pattern): return .replacePattern(pattern, with: content)
            }
        case "NFC": return .canonicalComposed
        case "NFD": return .canonicalDecomposed
        case "NFKC": return .compatibilityComposed
        case "NFKD": return .compatibilityDecomposed
        case "Lowercase": return .lowercase
        case "Strip":
            return .strip(
                left: try part.bool("strip_left", default: true),
                right: try part.bool("strip_right", default: true))
        case "StripAccents": return .stripAccents
        case "ByteLevel": return .byteLevel
        case "Nmt": return .nmt
        case "BertNormalizer":
            let lowercases = try part.bool("lowercase", default: true)
            return .bert(
                .init(
                    cleansText: try part.bool("clean_text", default: true),
                    spacesChinese: try part.bool("handle_chinese_chars", default: true),
                    stripsAccents: try part.bool("strip_accents", default: lowercases),
                    lowercases: lowercases))
        default: throw part.unsupportedType()
        }
    }
}

enum PreTokenizerReader {
    /// What GPT-2 split text by.
    static let byteLevelPattern =
        #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

    static func read(_ value: JSONValue) throws(TokenizerError) -> PreTokenizer {
        let part = PartFields(part: "pre_tokenizer", value: value)
        switch part.type {
        case "Sequence":
            var steps: [PreTokenizer] = []
            for step in try part.list("pretokenizers") { steps.append(try read(step)) }
            return .sequence(steps)
        case "ByteLevel":
            let usesPattern = try part.bool("use_regex", default: true)
            return .byteLevel(
                addsPrefixSpace: try part.bool("add_prefix_space", default: true),
                split: usesPattern ? try RegexPattern(byteLevelPattern) : nil)
        case "Split": return try split(part)
        case "Metaspace": return try metaspace(part)
        case "Digits":
            let isolates = try part.bool("individual_digits", default: false)
            return .split(.scalars(.numeric), isolates ? .isolated : .contiguous, inverted: false)
        case "Punctuation":
            return .split(
                .scalars(.punctuation), try behavior(part, default: .isolated), inverted: false)
        case "Whitespace": return .split(.words, .removed, inverted: true)
        case "WhitespaceSplit": return .split(.scalars(.whitespace), .removed, inverted: false)
        case "BertPreTokenizer":
            return .sequence([
                .split(.scalars(.whitespace), .removed, inverted: false),
                .split(.scalars(.punctuation), .isolated, inverted: false),
            ])
        case "CharDelimiterSplit", "Delimiter":
            return .split(
                .scalars(.exactly(try part.scalar("delimiter"))), .removed, inverted: false)
        case "FixedLength":
            let length = part.value["length"] == nil ? 5 : try part.count("length")
            if length == 0 { throw part.bad("length") }
            return .fixedLength(length)
        default: throw part.unsupportedType()
        }
    }

    private static func behavior(
        _ part: PartFields, default fallback: SplitBehavior?
    ) throws(TokenizerError) -> SplitBehavior {
        if part.value["behavior"] == nil, let fallback { return fallback }
        guard let behavior = SplitBehavior(rawValue: try part.string("behavior")) else {
            throw part.bad("behavior")
        }
        return behavior
    }

    private static func split(_ part: PartFields) throws(TokenizerError) -> PreTokenizer {
        let pattern: SplitPattern =
            switch try part.pattern() {
            case .text(let text): .text(text)
            case .pattern(let regex): .pattern(regex)
            }
        return .split(
            pattern, try behavior(part, default: nil),
            inverted: try part.bool("invert", default: false))
    }

    private static func metaspace(_ part: PartFields) throws(TokenizerError) -> PreTokenizer {
        let settings = try MetaspaceSettings(part)
        return .metaspace(
            replacement: UTF8Bytes.bytes(of: settings.replacement), settings.scheme,
            splits: try part.bool("split", default: true))
    }
}

/// What the pre-tokenizer and the decoder `Metaspace` share.
struct MetaspaceSettings {
    let replacement: Unicode.Scalar
    let scheme: PreTokenizer.PrependScheme

    init(_ part: PartFields) throws(TokenizerError) {
        replacement = try part.scalar("replacement")
        var scheme = PreTokenizer.PrependScheme.always
        if part.value["prepend_scheme"] != nil {
            guard
                let named = PreTokenizer.PrependScheme(rawValue: try part.string("prepend_scheme"))
            else { throw part.bad("prepend_scheme") }
            scheme = named
        } else if try !part.bool("add_prefix_space", default: true) {
            scheme = .never
        }
        self.scheme = scheme
    }
}

enum PostProcessorReader {
    static func read(_ value: JSONValue) throws(TokenizerError) -> PostProcessor {
        let part = PartFields(part: "post_processor", value: value)
        switch part.type {
        case "Sequence":
            var all = PostProcessor()
            for step in try part.list("processors") {
                all.templates += try read(step).templates
            }
            return all
        case "ByteLevel": return PostProcessor()
        case "BertProcessing", "RobertaProcessing":
            return PostProcessor(
                templates: [[try tokenPair(part, "cls"), .text, try tokenPair(part, "sep")]])
        case "TemplateProcessing": return try template(part)
        default: throw part.unsupportedType()
        }
    }

    private static func id(_ value: JSONValue, _ part: PartFields) throws(TokenizerError) -> Int32 {
        guard let id = value.integer, id >= 0, id < Vocabulary.maximumID else {
            throw part.bad("a token's id")
        }
        return Int32(id)
    }

    /// A token as `["</s>", 2]`.
    private static func tokenPair(
        _ part: PartFields, _ key: String
    ) throws(TokenizerError) -> PostProcessor.Part {
        let pair = try part.list(key)
        guard pair.count == 2 else { throw part.bad(key) }
        return .tokens([try id(pair[1], part)])
    }

    private static func template(_ part: PartFields) throws(TokenizerError) -> PostProcessor {
        var parts: [PostProcessor.Part] = []
        for piece in try part.list("single") {
            if let name = piece["SpecialToken"]?["id"]?.string {
                guard let ids = part.value["special_tokens"]?[name]?["ids"]?.array else {
                    throw .invalid(
                        "tokenizer.json: post_processor TemplateProcessing: \(name) is not in special_tokens"
                    )
                }
                var tokens: [Int32] = []
                for value in ids { tokens.append(try id(value, part)) }
                parts.append(.tokens(tokens))
            } else if piece["Sequence"]?["id"]?.string == "A" {
                parts.append(.text)
            } else {
                throw part.bad("single")
            }
        }
        return PostProcessor(templates: [parts])
    }
}

enum DecoderReader {
    static func read(_ value: JSONValue) throws(TokenizerError) -> [DecoderStep] {
        let part = PartFields(part: "decoder", value: value)
        switch part.type {
        case "Sequence":
            var steps: [DecoderStep] = []
            for step in try part.list("decoders") { steps += try read(step) }
            return steps
        case "ByteLevel": return [.byteLevel]
        case "ByteFallback": return [.byteFallback]
        case "Fuse": return [.fuse]
        case "Replace":
            let content = try part.bytes("content")
            switch try part.pattern() {
            case .text(let text): return [.replaceText(text, with: content)]
            case .pattern(let pattern): return [.replacePattern(pattern, with: content)]
            }
        case "Strip":
            return [
                .strip(
                    try part.scalar("content"), start: try part.count("start"),
                    stop: try part.count("stop"))
            ]
        case "Metaspace":
            let settings = try MetaspaceSettings(part)
            return [
                .metaspace(replacement: settings.replacement, dropsFirst: settings.scheme != .never)
            ]
        case "WordPiece":
            return [
                .wordPiece(
                    prefix: try part.bytes("prefix"),
                    cleansUp: try part.bool("cleanup", default: true))
            ]
        case "BPEDecoder": return [.wordSuffix(try part.bytes("suffix"))]
        case "CTC":
            return [
                .ctc(
                    pad: try part.bytes("pad_token"),
                    delimiter: try part.bytes("word_delimiter_token"),
                    cleansUp: try part.bool("cleanup", default: true))
            ]
        default: throw part.unsupportedType()
        }
    }
}
