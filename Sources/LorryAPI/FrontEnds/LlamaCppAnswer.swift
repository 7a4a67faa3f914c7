import LorryEngine
import NIOCore

/// Writes the answers of llama.cpp's `POST /completion`.
struct LlamaCppAnswer: AnswerFormat {
    let request: LlamaCppRequest
    let model: ServedModel
    let prompts: [TokenizedPrompt]
    let contextLength: Int

    private var names: TokenNames { TokenNames(tokenizer: model.text.tokenizer, byID: false) }

    private func prompt(of index: Int) -> TokenizedPrompt {
        prompts[index / request.fields.answerCount]
    }

    /// Of several answers an array, of one the answer itself.
    func whole(_ answers: [Answer], usage: TokenUsage) -> JSON {
        let results = answers.enumerated().map { index, answer in
            var members = last(
                index, answer.finish, answer.text,
                request.returnsTokens ? answer.tokens.map(\.id) : [],
                hasLineBreak: answer.text.contains("\n"))
            if request.logprobCount != nil {
                members.append(("completion_probabilities", probabilities(answer.tokens)))
            }
            return JSON.object(members)
        }
        return results.count == 1 ? results[0] : .array(results)
    }

    struct ChoiceState: Sendable {
        var tokenCount = 0
        var hasLineBreak = false
    }

    func initialState() -> ChoiceState { ChoiceState() }

    func chunks(
        _ index: Int, _ delta: AnswerDelta, _ state: inout ChoiceState, usage: TokenUsage
    ) -> [JSON] {
        var chunks: [JSON] = []
        state.tokenCount += delta.tokens.count
        state.hasLineBreak = state.hasLineBreak || delta.text.contains("\n")
        if !delta.text.isEmpty || !delta.tokens.isEmpty {
            var members: [(key: String, value: JSON)] = [
                ("index", .integer(index)), ("content", .string(delta.text)),
                ("tokens", .tokenIDs(delta.tokens.map(\.id))), ("stop", false),
                ("id_slot", -1), ("tokens_predicted", .integer(state.tokenCount)),
                ("tokens_evaluated", .integer(prompt(of: index).tokens.count)),
            ]
            if request.logprobCount != nil {
                members.append(("completion_probabilities", probabilities(delta.tokens)))
            }
            chunks.append(.object(members))
        }
        if let finish = delta.finish {
            // The text has been told already.
            let last = last(index, finish, "", [], hasLineBreak: state.hasLineBreak)
            chunks.append(.object(last))
        }
        return chunks
    }

    func failure(_ error: APIError) -> ByteBuffer {
        EventStream.event(ErrorForm.llamaCpp.body(error))
    }

    var streamEnd: ByteBuffer? { nil }

    private func last(
        _ index: Int, _ finish: AnswerFinish?, _ text: String, _ tokens: [Int32],
        hasLineBreak: Bool
    ) -> [(key: String, value: JSON)] {
        let prompt = prompt(of: index)
        let (type, word) = Self.stop(finish?.cause)
        return [
            ("index", .integer(index)), ("content", .string(text)), ("tokens", .tokenIDs(tokens)),
            ("id_slot", -1), ("stop", true), ("model", .string(model.name)),
            ("tokens_predicted", .integer(finish?.completionTokenCount ?? 0)),
            ("tokens_evaluated", .integer(prompt.tokens.count)),
            (
                "generation_settings",
                LlamaCppRequest.settings(request.fields, probabilityCount: request.logprobCount)
            ),
            ("prompt", .string(prompt.text)),
            ("has_new_line", .bool(hasLineBreak)), ("truncated", false),
            ("stop_type", .string(type)), ("stopping_word", .string(word)),
            ("tokens_cached", .integer(finish?.cachedTokenCount ?? 0)),
            ("timings", timings(finish, promptTokenCount: prompt.tokens.count)),
        ]
    }

    private static func stop(_ cause: AnswerFinish.Cause?) -> (type: String, word: String) {
        switch cause {
        case .endToken, .stopToken: ("eos", "")
        case .stopString(let word): ("word", word)
        case .length: ("limit", "")
        case .aborted, nil: ("none", "")
        }
    }

    private func timings(_ finish: AnswerFinish?, promptTokenCount: Int) -> JSON {
        let cached = finish?.cachedTokenCount ?? 0
        let evaluated = promptTokenCount - cached
        let predicted = finish?.completionTokenCount ?? 0
        let prefill = (finish?.timings.prefill ?? .zero) / .milliseconds(1)
        let decode = (finish?.timings.decode ?? .zero) / .milliseconds(1)
        // What divides by nothing is written as null, as llama.cpp's server does.
        return [
            "cache_n": .integer(cached), "prompt_n": .integer(evaluated),
            "prompt_ms": .double(prefill),
            "prompt_per_token_ms": .double(prefill / Double(evaluated)),
            "prompt_per_second": .double(Double(evaluated) * 1000 / prefill),
            "predicted_n": .integer(predicted), "predicted_ms": .double(decode),
            "predicted_per_token_ms": .double(decode / Double(predicted)),
            "predicted_per_second": .double(Double(predicted) * 1000 / decode),
        ]
    }

    private func probabilities(_ tokens: [GeneratedToken]) -> JSON {
        .array(
            tokens.map { token in
                let top = (token.logprobs?.top ?? []).prefix(request.logprobCount ?? 0)
                var members = entry(token.id, token.logprobs?.logprob ?? 0)
                members.append(
                    ("top_logprobs", .array(top.map { .object(entry($0.id, $0.logprob)) })))
                return .object(members)
            })
    }

    private func entry(_ id: Int32, _ logprob: Float) -> [(key: String, value: JSON)] {
        [
            ("id", .integer(Int(id))), ("token", .string(names.text(id))),
            ("bytes", .array(names.bytes(id).map { .integer(Int($0)) })),
            ("logprob", TokenNames.json(logprob)),
        ]
    }
}

extension LlamaCppRequest {
    /// `generation_settings`: what is served of them.
    static func settings(_ fields: GenerationFields, probabilityCount: Int? = nil) -> JSON {
        let sampling = fields.sampling
        let bias = sampling.logitBias.sorted { $0.key < $1.key }.map { id, bias -> JSON in
            ["bias": .float(bias), "token": .integer(Int(id))]
        }
        return [
            "seed": .integer(sampling.seed.flatMap { Int(exactly: $0) } ?? Int(UInt32.max)),
            "temperature": .float(sampling.temperature), "top_k": .integer(sampling.topK),
            "top_p": .float(sampling.topP), "min_p": .float(sampling.minP),
            "typical_p": .float(sampling.typicalP), "repeat_last_n": -1,
            "repeat_penalty": .float(sampling.repetitionPenalty),
            "presence_penalty": .float(sampling.presencePenalty),
            "frequency_penalty": .float(sampling.frequencyPenalty),
            "stop": .array(fields.stopStrings.map { .string($0) }),
            "max_tokens": .integer(fields.maximumTokenCount ?? -1),
            "n_predict": .integer(fields.maximumTokenCount ?? -1),
            "ignore_eos": .bool(fields.ignoresEndTokens), "stream": .bool(fields.streams),
            "logit_bias": .array(bias), "n_probs": .integer(probabilityCount ?? 0),
        ]
    }
}
