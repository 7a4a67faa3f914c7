/// What `tokenizer_config.json` and `special_tokens_map.json` add to a tokenizer.
struct TokenizerSettings {
    var bosToken: String?
    var eosToken: String?
    var padToken: String?
    var unknownToken: String?
    private var addsBOS: Bool?
    private var addsEOS: Bool?
    /// The chat templates by name; a lone one is called `default`.
    private(set) var templateSources: [String: String] = [:]

    init() {}

    /// - Throws: `TokenizerError` naming the field.
    init(configuration: JSONValue, specialTokens: JSONValue?) throws(TokenizerError) {
        func token(_ key: String) -> String? {
            Self.token(configuration[key]) ?? Self.token(specialTokens?[key])
        }
        bosToken = token("bos_token")
        eosToken = token("eos_token")
        padToken = token("pad_token")
        unknownToken = token("unk_token")
        addsBOS = configuration["add_bos_token"]?.bool
        addsEOS = configuration["add_eos_token"]?.bool
        switch configuration["chat_template"] {
        case nil, .null: break
        case .string(let source): templateSources["default"] = source
        case .array(let list):
            for entry in list {
                guard let name = entry["name"]?.string, let source = entry["template"]?.string
                else {
                    throw .invalid(
                        "tokenizer_config.json: an entry of chat_template has no name or template")
                }
                templateSources[name] = source
            }
        default:
            throw .invalid("tokenizer_config.json: chat_template is neither a string nor a list")
        }
    }

    /// A token as a string or as an object with its content.
    private static func token(_ value: JSONValue?) -> String? {
        value?.string ?? value?["content"]?.string
    }

    /// The file's post-processor, unless the configuration says explicitly whether text begins and
    /// ends with special tokens: transformers then replaces it.
    func postProcessor(declared: PostProcessor?, id: (String) -> Int32?) -> PostProcessor {
        if addsBOS == nil, addsEOS == nil { return declared ?? PostProcessor() }
        var template: [PostProcessor.Part] = []
        if addsBOS == true, let bosToken, let bos = id(bosToken) { template.append(.tokens([bos])) }
        template.append(.text)
        if addsEOS == true, let eosToken, let eos = id(eosToken) { template.append(.tokens([eos])) }
        return PostProcessor(templates: [template])
    }
}
