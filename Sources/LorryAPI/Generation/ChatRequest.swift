import LorryModel

/// The body of `POST /v1/chat/completions`, read and checked.
struct ChatRequest: Sendable {
    let fields: GenerationFields
    let conversation: Conversation
    /// Alternatives per token; nil for no log-probabilities.
    let logprobCount: Int?

    init(_ reader: FieldReader, vocabularySize: Int) throws(APIError) {
        var fields = try GenerationFields(reader, vocabularySize: vocabularySize)
        let older = try reader.integer("max_tokens", in: 1...Int.max, "at least 1")
        let newer = try reader.integer("max_completion_tokens", in: 1...Int.max, "at least 1")
        fields.maximumTokenCount = newer ?? older
        conversation = try Conversation(reader)
        logprobCount = try Self.logprobCount(reader)
        self.fields = fields
    }

    private static func logprobCount(_ reader: FieldReader) throws(APIError) -> Int? {
        let wanted = try reader.bool("logprobs") ?? false
        let counts = 0...GenerationFields.maximumLogprobCount
        let top = try reader.integer(
            "top_logprobs", in: counts, "between 0 and \(counts.upperBound)")
        if let top, top > 0, !wanted {
            throw reader.fail("top_logprobs", "can only be set when logprobs is true.")
        }
        return wanted ? top ?? 0 : nil
    }
}

/// Messages and what goes with them into the chat template.
struct Conversation: Sendable {
    /// As sent, but with text parts joined; keys in the client's order, which templates may show.
    let messages: [Message]
    let tools: [StrictJSON]?
    let toolChoice: StrictJSON?
    let templateArguments: [(key: String, value: StrictJSON)]
    let addsGenerationPrompt: Bool
    let continuesFinalMessage: Bool
    let addsSpecialTokens: Bool

    struct Message: Sendable {
        let role: String
        /// Nil where an assistant's message has tool calls only.
        let content: String?
        let others: [(key: String, value: StrictJSON)]
    }

    static let roles = ["system", "developer", "user", "assistant", "tool"]

    init(_ reader: FieldReader) throws(APIError) {
        guard let list = try reader.array("messages") else {
            throw reader.fail("messages", "is required.")
        }
        guard !list.isEmpty else { throw reader.fail("messages", "cannot be empty.") }
        var messages: [Message] = []
        for (position, value) in list.enumerated() {
            guard let object = value.objectValue else {
                throw reader.fail("messages", "must hold objects.")
            }
            messages.append(
                try Self.message(FieldReader(object: object, path: "messages[\(position)].")))
        }
        self.messages = messages
        tools = try reader.array("tools")
        for tool in tools ?? [] where tool.objectValue == nil {
            throw reader.fail("tools", "must hold objects.")
        }
        toolChoice = reader.value("tool_choice")
        templateArguments = try reader.fields("chat_template_kwargs")?.object.members ?? []
        continuesFinalMessage = try reader.bool("continue_final_message") ?? false
        addsGenerationPrompt =
            try reader.bool("add_generation_prompt") ?? !continuesFinalMessage
        guard !(continuesFinalMessage && addsGenerationPrompt) else {
            throw reader.fail(
                "add_generation_prompt", "cannot be true where continue_final_message is true.")
        }
        if continuesFinalMessage, messages.last?.content?.isEmpty ?? true {
            throw reader.fail("continue_final_message", "needs a final message with content.")
        }
        addsSpecialTokens = try reader.bool("add_special_tokens") ?? false
        if reader.value("chat_template") != nil {
            throw reader.fail("chat_template", "is not accepted from clients.")
        }
    }

    private static func message(_ fields: FieldReader) throws(APIError) -> Message {
        guard let role = try fields.string("role") else {
            throw fields.fail("role", "is required.")
        }
        guard roles.contains(role) else {
            throw fields.fail("role", "must be one of \(roles.joined(separator: ", ")).")
        }
        let content = try content(fields)
        let hasCalls = fields.value("tool_calls")?.arrayValue?.isEmpty == false
        guard content != nil || (role == "assistant" && hasCalls) else {
            throw fields.fail("content", "is required.")
        }
        let others = fields.object.members.filter { $0.key != "role" && $0.key != "content" }
        return Message(role: role, content: content, others: others)
    }

    /// A string, or parts of type text, which are joined by line breaks as vLLM does.
    private static func content(_ fields: FieldReader) throws(APIError) -> String? {
        guard let value = fields.value("content") else { return nil }
        if let text = value.stringValue { return text }
        guard let parts = value.arrayValue else {
            throw fields.fail("content", "must be a string or an array of parts.")
        }
        var texts: [String] = []
        for (position, part) in parts.enumerated() {
            guard let object = part.objectValue else {
                throw fields.fail("content[\(position)]", "must be an object.")
            }
            let member = FieldReader(object: object, path: "\(fields.path)content[\(position)].")
            let type = try member.string("type") ?? "text"
            guard type == "text" else {
                throw member.fail("type", "'\(type)' is not supported: only 'text' is.")
            }
            guard let text = try member.string("text") else {
                throw member.fail("text", "is required.")
            }
            texts.append(text)
        }
        return texts.joined(separator: "\n")
    }
}
