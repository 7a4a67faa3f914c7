import LorryEngine

/// Writes completions answers: whole ones, and the chunks of streams.
struct CompletionAnswer: AnswerFormat {
    let id: String
    let created: Int
    let model: String
    let request: CompletionRequest
    let prompts: [TokenizedPrompt]
    let names: TokenNames

    private var fields: GenerationFields { request.fields }

    private func prompt(of answerIndex: Int) -> TokenizedPrompt {
        prompts[answerIndex / fields.answerCount]
    }

    private func tokens(_ tokens: [GeneratedToken]) -> [(id: Int32, logprobs: TokenLogprobs?)] {
        tokens.map { ($0.id, $0.logprobs) }
    }

    private func promptTokens(
        _ prompt: TokenizedPrompt, _ logprobs: [TokenLogprobs?]
    ) -> [(id: Int32, logprobs: TokenLogprobs?)] {
        prompt.tokens.enumerated().map { ($1, $0 < logprobs.count ? logprobs[$0] : nil) }
    }

    func whole(_ answers: [Answer], usage: TokenUsage) -> JSON {
        let choices = answers.enumerated().map { index, answer in choice(index, answer) }
        return .object(head + [("choices", .array(choices)), ("usage", usage.json)])
    }

    private func choice(_ index: Int, _ answer: Answer) -> JSON {
        let prompt = prompt(of: index)
        var logprobs = JSON.null
        if let count = request.logprobCount {
            var writer = CompletionLogprobs(names: names, alternativeCount: count)
            let echoed = request.echoes ? promptTokens(prompt, answer.promptLogprobs) : []
            logprobs = writer.json(echoed + tokens(answer.tokens))
        }
        var members: [(key: String, value: JSON)] = [
            ("index", .integer(index)),
            ("text", .string((request.echoes ? prompt.text : "") + answer.text)),
            ("logprobs", logprobs),
            ("finish_reason", .optional(answer.finish?.reason)),
            ("stop_reason", answer.finish?.stopReason ?? .null),
        ]
        if fields.returnsTokenIDs {
            members.append(("prompt_token_ids", .tokenIDs(prompt.tokens)))
            members.append(("token_ids", .tokenIDs(answer.tokens.map(\.id))))
        }
        return .object(members)
    }

    private var head: [(key: String, value: JSON)] {
        [
            ("id", .string(id)), ("object", "text_completion"), ("created", .integer(created)),
            ("model", .string(model)),
        ]
    }

    struct ChoiceState: Sendable {
        var hasBegun = false
        var logprobs: CompletionLogprobs
    }

    func initialState() -> ChoiceState {
        ChoiceState(
            logprobs: CompletionLogprobs(
                names: names, alternativeCount: request.logprobCount ?? 0))
    }

    func chunks(
        _ index: Int, _ delta: AnswerDelta, _ state: inout ChoiceState, usage: TokenUsage
    ) -> [JSON] {
        let prompt = prompt(of: index)
        var text = delta.text
        var shown = tokens(delta.tokens)
        let isFirst = !state.hasBegun
        if isFirst, request.echoes {
            text = prompt.text + text
            shown = promptTokens(prompt, delta.promptLogprobs ?? []) + shown
        }
        let tellsTokens = request.logprobCount != nil || fields.returnsTokenIDs
        guard !text.isEmpty || delta.finish != nil || (tellsTokens && !shown.isEmpty) else {
            return []
        }
        state.hasBegun = true
        var members: [(key: String, value: JSON)] = [
            ("index", .integer(index)), ("text", .string(text)),
            (
                "logprobs",
                request.logprobCount == nil || shown.isEmpty ? .null : state.logprobs.json(shown)
            ),
            ("finish_reason", .optional(delta.finish?.reason)),
            ("stop_reason", delta.finish?.stopReason ?? .null),
        ]
        if fields.returnsTokenIDs {
            if isFirst { members.append(("prompt_token_ids", .tokenIDs(prompt.tokens))) }
            members.append(("token_ids", .tokenIDs(delta.tokens.map(\.id))))
        }
        var chunk = head + [("choices", .array([.object(members)]))]
        if fields.continuousUsage {
            chunk.append(("usage", usage.json))
        } else if fields.includesUsage {
            chunk.append(("usage", .null))
        }
        return [.object(chunk)]
    }

    func usageChunk(_ usage: TokenUsage) -> JSON? {
        .object(head + [("choices", .array([])), ("usage", usage.json)])
    }
}
