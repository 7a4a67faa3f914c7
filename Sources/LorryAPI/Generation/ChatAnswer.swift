import LorryEngine

/// Writes chat completions: whole ones, and the chunks of streams.
struct ChatAnswer: AnswerFormat {
    let id: String
    let created: Int
    let model: String
    let fields: GenerationFields
    /// Alternatives per token; nil for no log-probabilities.
    let logprobCount: Int?
    let promptTokens: [Int32]
    let names: TokenNames

    struct ChoiceState: Sendable {
        var hasBegun = false
    }

    func initialState() -> ChoiceState { ChoiceState() }

    private func head(_ object: String) -> [(key: String, value: JSON)] {
        [
            ("id", .string(id)), ("object", .string(object)), ("created", .integer(created)),
            ("model", .string(model)),
        ]
    }

    func whole(_ answers: [Answer], usage: TokenUsage) -> JSON {
        let choices = answers.enumerated().map { index, answer in
            var members: [(key: String, value: JSON)] = [
                ("index", .integer(index)),
                ("message", ["role": "assistant", "content": .string(answer.text)]),
                ("logprobs", logprobs(answer.tokens)),
                ("finish_reason", .optional(answer.finish?.reason)),
                ("stop_reason", answer.finish?.stopReason ?? .null),
            ]
            if fields.returnsTokenIDs {
                members.append(("token_ids", .tokenIDs(answer.tokens.map(\.id))))
            }
            return JSON.object(members)
        }
        var members = head("chat.completion")
        members += [("choices", .array(choices)), ("usage", usage.json)]
        if fields.returnsTokenIDs {
            members.append(("prompt_token_ids", .tokenIDs(promptTokens)))
        }
        return .object(members)
    }

    func chunks(
        _ index: Int, _ delta: AnswerDelta, _ state: inout ChoiceState, usage: TokenUsage
    ) -> [JSON] {
        var chunks: [JSON] = []
        if !state.hasBegun {
            state.hasBegun = true
            var first = chunk(
                [
                    ("index", .integer(index)), ("delta", ["role": "assistant", "content": ""]),
                    ("logprobs", .null), ("finish_reason", .null),
                ], usage)
            if fields.returnsTokenIDs {
                first.append(("prompt_token_ids", .tokenIDs(promptTokens)))
            }
            chunks.append(.object(first))
        }
        let tellsTokens = logprobCount != nil || fields.returnsTokenIDs
        let hasTokens = tellsTokens && !delta.tokens.isEmpty
        guard !delta.text.isEmpty || delta.finish != nil || hasTokens else { return chunks }
        let content: JSON =
            delta.text.isEmpty && delta.finish != nil ? [:] : ["content": .string(delta.text)]
        var choice: [(key: String, value: JSON)] = [
            ("index", .integer(index)), ("delta", content),
            ("logprobs", delta.tokens.isEmpty ? .null : logprobs(delta.tokens)),
            ("finish_reason", .optional(delta.finish?.reason)),
        ]
        if let finish = delta.finish { choice.append(("stop_reason", finish.stopReason)) }
        if fields.returnsTokenIDs {
            choice.append(("token_ids", .tokenIDs(delta.tokens.map(\.id))))
        }
        chunks.append(.object(chunk(choice, usage)))
        return chunks
    }

    private func chunk(
        _ choice: [(key: String, value: JSON)], _ usage: TokenUsage
    ) -> [(key: String, value: JSON)] {
        var members = head("chat.completion.chunk")
        members.append(("choices", .array([.object(choice)])))
        if fields.continuousUsage {
            members.append(("usage", usage.json))
        } else if fields.includesUsage {
            members.append(("usage", .null))
        }
        return members
    }

    func usageChunk(_ usage: TokenUsage) -> JSON? {
        .object(head("chat.completion.chunk") + [("choices", .array([])), ("usage", usage.json)])
    }

    private func logprobs(_ tokens: [GeneratedToken]) -> JSON {
        guard let logprobCount else { return .null }
        let entries = tokens.map { token in
            guard let logprobs = token.logprobs else { return entry(token.id, 0, []) }
            let top = logprobs.top.prefix(logprobCount).map { entry($0.id, $0.logprob, nil) }
            return entry(token.id, logprobs.logprob, top)
        }
        return ["content": .array(entries)]
    }

    private func entry(_ id: Int32, _ logprob: Float, _ top: [JSON]?) -> JSON {
        var members: [(key: String, value: JSON)] = [
            ("token", .string(names.text(id))), ("logprob", TokenNames.json(logprob)),
            ("bytes", .array(names.bytes(id).map { .integer(Int($0)) })),
        ]
        if let top { members.append(("top_logprobs", .array(top))) }
        return .object(members)
    }
}
