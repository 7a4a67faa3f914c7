import LorryEngine
import LorryText
import NIOCore

/// Writes the answers of LoRAX's generation routes.
struct LoRAXAnswer: AnswerFormat {
    typealias Members = [(key: String, value: JSON)]

    let request: LoRAXRequest
    let model: ServedModel
    let prompts: [TokenizedPrompt]

    private var names: TokenNames { TokenNames(tokenizer: model.text.tokenizer, byID: false) }
    private var promptTokens: [Int32] { prompts.flatMap(\.tokens) }

    private func shown(_ text: String) -> JSON {
        .string((request.showsPrompt ? request.inputs : "") + text)
    }

    // MARK: Whole answers

    func whole(_ answers: [Answer], usage: TokenUsage) -> JSON {
        let ranking = AnswerResponses.ranking(answers)
        guard let first = ranking.first else { return .null }
        var members: Members = [("generated_text", shown(answers[first].text))]
        if request.showsDetails {
            var details = details(answers[first], candidate: first)
            details.insert(("prompt_tokens", .integer(promptTokens.count)), at: 1)
            details.insert(("skipped_tokens", 0), at: 3)
            if ranking.count > 1 {
                let others = ranking.dropFirst().map { candidate -> JSON in
                    var members: Members = [("generated_text", shown(answers[candidate].text))]
                    members += self.details(answers[candidate], candidate: candidate)
                    return .object(members)
                }
                details.append(("best_of_sequences", .array(others)))
            }
            members.append(("details", .object(details)))
        }
        return request.route == .compatible ? [.object(members)] : .object(members)
    }

    private func details(_ answer: Answer, candidate: Int) -> Members {
        var tokens = answer.tokens.map { token($0, text: names.text($0.id)) }
        if case .endToken(let id)? = answer.finish?.cause { tokens.append(endToken(id)) }
        return [
            ("finish_reason", .string(Self.reason(answer.finish))),
            ("generated_tokens", .integer(answer.finish?.completionTokenCount ?? 0)),
            ("seed", seed(candidate)), ("prefill", .array(prefill(answer))),
            ("tokens", .array(tokens)),
        ]
    }

    /// Candidate `i` is drawn with the first's seed + `i`.
    private func seed(_ candidate: Int) -> JSON {
        .optional(request.seed.map { $0 &+ candidate })
    }

    private func prefill(_ answer: Answer) -> [JSON] {
        guard request.showsPrefill else { return [] }
        return zip(promptTokens, answer.promptLogprobs).map { id, logprobs in
            .object(entry(id, logprobs?.logprob))
        }
    }

    static func reason(_ finish: AnswerFinish?) -> String {
        switch finish?.cause {
        case .endToken, .stopToken: "eos_token"
        case .stopString: "stop_sequence"
        case .length: "length"
        // No value of LoRAX's: nobody should take the answer for a whole one.
        case .aborted, nil: "incomplete_generation"
        }
    }

    // MARK: Tokens

    private func entry(
        _ id: Int32, _ logprob: Float?, text: String? = nil
    ) -> Members {
        [
            ("id", .integer(Int(id))), ("text", .string(text ?? names.text(id))),
            ("logprob", logprob.map { TokenNames.json($0) } ?? .null),
        ]
    }

    private func token(_ token: GeneratedToken, text: String) -> JSON {
        var members = entry(token.id, token.logprobs?.logprob, text: text)
        members.append(("special", .bool(names.tokenizer.isSpecial(token.id))))
        if request.alternativeCount > 0 {
            let top = (token.logprobs?.top ?? []).prefix(request.alternativeCount)
            members.append(
                ("alternative_tokens", .array(top.map { .object(entry($0.id, $0.logprob)) })))
        }
        members.append(("skipped", false))
        return .object(members)
    }

    /// The engine tells no log-probability of the token that ends an answer.
    private func endToken(_ id: Int32) -> JSON {
        var members = entry(id, nil)
        members.append(("special", true))
        members.append(("skipped", false))
        return .object(members)
    }

    // MARK: Streams

    struct ChoiceState: Sendable {
        var text = ""
        /// The last token, which waits for the end so that one event tells both.
        var held: (token: GeneratedToken, text: String)?
        var lastID: Int32 = 0
    }

    func initialState() -> ChoiceState { ChoiceState() }

    func chunks(
        _ index: Int, _ delta: AnswerDelta, _ state: inout ChoiceState, usage: TokenUsage
    ) -> [JSON] {
        state.text += delta.text
        var events: [JSON] = []
        for told in delta.tokens {
            state.lastID = told.id
            if delta.hasLastToken {
                state.held = (told, delta.text)
            } else {
                events.append(event(token(told, text: delta.text), text: nil, nil))
            }
        }
        guard let finish = delta.finish else { return events }
        events += end(finish, leftover: delta.text, state)
        return events
    }

    private func end(
        _ finish: AnswerFinish, leftover: String, _ state: ChoiceState
    ) -> [JSON] {
        if let held = state.held {
            return [event(token(held.token, text: held.text + leftover), text: state.text, finish)]
        }
        var events: [JSON] = []
        // Text that was held back belongs to no special token: clients leave those out.
        let last = GeneratedToken(id: state.lastID, logprobs: nil)
        guard case .endToken(let id) = finish.cause else {
            return [event(token(last, text: leftover), text: state.text, finish)]
        }
        if !leftover.isEmpty { events.append(event(token(last, text: leftover), text: nil, nil)) }
        events.append(event(endToken(id), text: state.text, finish))
        return events
    }

    private func event(_ token: JSON, text: String?, _ finish: AnswerFinish?) -> JSON {
        var details = JSON.null
        if request.showsDetails, let finish {
            details = [
                "finish_reason": .string(Self.reason(finish)),
                "prompt_tokens": .integer(promptTokens.count),
                "generated_tokens": .integer(finish.completionTokenCount), "seed": seed(0),
            ]
        }
        return [
            "token": token, "generated_text": text.map { shown($0) } ?? .null, "details": details,
        ]
    }

    func failure(_ error: APIError) -> ByteBuffer {
        EventStream.event(ErrorForm.loRAX.body(error))
    }

    var streamEnd: ByteBuffer? { nil }
}
