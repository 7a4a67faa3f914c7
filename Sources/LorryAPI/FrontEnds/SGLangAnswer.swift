import LorryEngine

/// Writes the answers of SGLang's `POST /generate`, whose streams repeat the whole text so far.
struct SGLangAnswer: AnswerFormat {
    let id: String
    let request: SGLangRequest
    let models: [ServedModel]
    let prompts: [TokenizedPrompt]

    private var answerCount: Int { request.fields.answerCount }
    private var isList: Bool { request.isBatch || answerCount > 1 }

    func whole(_ answers: [Answer], usage: TokenUsage) -> JSON {
        let results = answers.enumerated().map { JSON.object(members($0, $1)) }
        return isList ? .array(results) : results.first ?? .null
    }

    struct ChoiceState: Sendable {
        var answer = Answer()
    }

    func initialState() -> ChoiceState { ChoiceState() }

    func chunks(
        _ index: Int, _ delta: AnswerDelta, _ state: inout ChoiceState, usage: TokenUsage
    ) -> [JSON] {
        state.answer.append(delta)
        guard !delta.tokens.isEmpty || delta.finish != nil else { return [] }
        var members = members(index, state.answer)
        if isList { members.append(("index", .integer(index))) }
        return [.object(members)]
    }

    private func members(_ index: Int, _ answer: Answer) -> [(key: String, value: JSON)] {
        [
            ("text", .string(answer.text)), ("output_ids", .tokenIDs(answer.tokens.map(\.id))),
            ("meta_info", .object(about(index, answer))),
        ]
    }

    private func about(_ index: Int, _ answer: Answer) -> [(key: String, value: JSON)] {
        let promptIndex = index / answerCount
        let prompt = prompts[promptIndex]
        let count = answer.finish?.completionTokenCount ?? answer.tokens.count
        var members: [(key: String, value: JSON)] = [
            ("id", .string(name(of: index))), ("finish_reason", Self.reason(answer.finish)),
            ("prompt_tokens", .integer(prompt.tokens.count)),
            ("weight_version", .string(models[promptIndex].versionHeader)),
            ("completion_tokens", .integer(count)),
            ("cached_tokens", .integer(answer.finish?.cachedTokenCount ?? 0)),
        ]
        if let timings = answer.finish?.timings {
            let total = timings.queue + timings.load + timings.prefill + timings.decode
            members.append(("e2e_latency", .double(total / .seconds(1))))
        }
        if let count = request.logprobCount {
            members += logprobs(answer, prompt, promptIndex, alternativeCount: count)
        }
        return members
    }

    private func name(of index: Int) -> String {
        let promptIndex = index / answerCount
        if request.ids.indices.contains(promptIndex), answerCount == 1 {
            return request.ids[promptIndex]
        }
        return isList ? "\(id)-\(index)" : id
    }

    private static func reason(_ finish: AnswerFinish?) -> JSON {
        guard let finish else { return .null }
        return switch finish.cause {
        case .endToken(let id), .stopToken(let id):
            ["type": "stop", "matched": .integer(Int(id))]
        case .stopString(let text): ["type": "stop", "matched": .string(text)]
        case .length: ["type": "length", "length": .integer(finish.completionTokenCount)]
        case .aborted: ["type": "abort", "message": "The server ended the answer."]
        }
    }

    // MARK: Log-probabilities

    private func logprobs(
        _ answer: Answer, _ prompt: TokenizedPrompt, _ promptIndex: Int, alternativeCount: Int
    ) -> [(key: String, value: JSON)] {
        let names = TokenNames(tokenizer: models[promptIndex].text.tokenizer, byID: false)
        var input: [(id: Int32, logprobs: TokenLogprobs?)] = []
        if let start = request.logprobStart, !answer.promptLogprobs.isEmpty {
            input = zip(prompt.tokens, answer.promptLogprobs).map { ($0, $1) }
            input.removeFirst(min(start, input.count))
        }
        let output = answer.tokens.map { (id: $0.id, logprobs: $0.logprobs) }
        var members: [(key: String, value: JSON)] = [
            ("input_token_logprobs", list(input, names)),
            ("output_token_logprobs", list(output, names)),
        ]
        if alternativeCount > 0 {
            members += [
                ("input_top_logprobs", tops(input, names, alternativeCount)),
                ("output_top_logprobs", tops(output, names, alternativeCount)),
            ]
        }
        return members
    }

    /// `[log-probability or null, id, text or null]`
    private func entry(_ id: Int32, _ logprob: Float?, _ names: TokenNames) -> JSON {
        [
            logprob.map { TokenNames.json($0) } ?? .null, .integer(Int(id)),
            request.namesTokens ? .string(names.text(id)) : .null,
        ]
    }

    private func list(
        _ tokens: [(id: Int32, logprobs: TokenLogprobs?)], _ names: TokenNames
    ) -> JSON {
        .array(tokens.map { entry($0.id, $0.logprobs?.logprob, names) })
    }

    private func tops(
        _ tokens: [(id: Int32, logprobs: TokenLogprobs?)], _ names: TokenNames, _ count: Int
    ) -> JSON {
        .array(
            tokens.map { token in
                guard let logprobs = token.logprobs else { return .null }
                return .array(logprobs.top.prefix(count).map { entry($0.id, $0.logprob, names) })
            })
    }
}
