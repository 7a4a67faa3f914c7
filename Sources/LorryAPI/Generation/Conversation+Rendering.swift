import LorryModel
import LorryText
import OrderedCollections

extension Conversation {
    /// The prompt that the model's chat template makes of the messages.
    ///
    /// - Throws: `APIError` 400 where the model has no template, or the template refuses.
    func rendered(with text: TextCodec) async throws(APIError) -> String {
        let named = tools?.isEmpty == false ? text.tokenizer.namedChatTemplates["tool_use"] : nil
        guard let template = named ?? text.template else {
            throw .invalid(
                "messages",
                "The model has no chat template, so it cannot take messages: use /v1/completions.")
        }
        let context = context(text.tokenizer)
        let rendered: String
        // A template may loop for seconds before its bounds end it.
        switch await onDispatch({ Result { try template.render(context) } }) {
        case .success(let text): rendered = text
        case .failure(let error):
            throw .invalid("messages", "The chat template refused the messages: \(error)")
        }
        guard continuesFinalMessage, let content = messages.last?.content else { return rendered }
        return try Self.cut(rendered, after: content)
    }

    private func context(_ tokenizer: Tokenizer) -> [String: JSONValue] {
        var context: [String: JSONValue] = ["documents": .null]
        for (key, value) in templateArguments { context[key] = JSONValue(value) }
        context["messages"] = .array(messages.map(Self.value))
        context["tools"] = tools.map { .array($0.map { JSONValue($0) }) } ?? .null
        if let toolChoice { context["tool_choice"] = JSONValue(toolChoice) }
        context["add_generation_prompt"] = .bool(addsGenerationPrompt)
        let special = [
            ("bos_token", tokenizer.bosToken), ("eos_token", tokenizer.eosToken),
            ("pad_token", tokenizer.padToken), ("unk_token", tokenizer.unknownToken),
        ]
        for (name, token) in special {
            if let token { context[name] = .string(token) }
        }
        return context
    }

    private static func value(_ message: Message) -> JSONValue {
        var members: OrderedDictionary<String, JSONValue> = ["role": .string(message.role)]
        members["content"] = message.content.map { .string($0) } ?? .null
        for (key, value) in message.others {
            members[key] = key == "tool_calls" ? toolCalls(value) : JSONValue(value)
        }
        return .object(members)
    }

    /// Clients send a call's arguments as JSON text; templates expect the value.
    private static func toolCalls(_ value: StrictJSON) -> JSONValue {
        guard case .array(let calls) = JSONValue(value) else { return JSONValue(value) }
        return .array(
            calls.map { call in
                guard case .object(var members) = call,
                    case .object(var function)? = members["function"],
                    let text = function["arguments"]?.string,
                    let arguments = try? StrictJSON(parsing: text.utf8)
                else { return call }
                function["arguments"] = JSONValue(arguments)
                members["function"] = .object(function)
                return .object(members)
            })
    }

    /// Leaves out what the template put after the final message, such as its end token.
    private static func cut(_ text: String, after content: String) throws(APIError) -> String {
        for candidate in [content, content.trimmingSpaces] {
            if let range = text.ranges(of: candidate).last {
                return String(text[..<range.upperBound])
            }
        }
        throw .invalid(
            "continue_final_message",
            "The chat template changes the final message, so it cannot "
                + "be continued.")
    }
}

extension JSONValue {
    init(_ value: StrictJSON) {
        switch value {
        case .null: self = .null
        case .bool(let flag): self = .bool(flag)
        case .integer(let number): self = .integer(number)
        case .number(let number): self = .double(number)
        case .string(let text): self = .string(text)
        case .array(let values): self = .array(values.map { JSONValue($0) })
        case .object(let object):
            var members: OrderedDictionary<String, JSONValue> = [:]
            for (key, value) in object.members { members[key] = JSONValue(value) }
            self = .object(members)
        }
    }
}
