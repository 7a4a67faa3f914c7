import LorryAPI
import LorryEngine
import LorryModel
import Testing

/// A request with one bad field: its body beside the prompt, the field, and words of the reason.
struct BadField: Sendable, CustomTestStringConvertible {
    let json: String
    let field: String
    let words: String
    var testDescription: String { json }

    init(_ json: String, _ field: String, _ words: String) {
        self.json = json
        self.field = field
        self.words = words
    }
}

@Suite struct ValidationTests {
    static let shared: [BadField] = [
        .init(#""model": 3"#, "model", "must be a string"),
        .init(#""temperature": -0.1"#, "temperature", "non-negative"),
        .init(#""temperature": NaN"#, "temperature", "non-negative"),
        .init(#""temperature": Infinity"#, "temperature", "non-negative"),
        .init(#""temperature": "hot""#, "temperature", "must be a number"),
        .init(#""top_p": 0"#, "top_p", "in (0, 1]"),
        .init(#""top_p": 1.01"#, "top_p", "in (0, 1]"),
        .init(#""top_k": -2"#, "top_k", "at least 1"),
        .init(#""top_k": 1.5"#, "top_k", "integer"),
        .init(#""min_p": -0.01"#, "min_p", "in [0, 1]"),
        .init(#""min_p": 1.1"#, "min_p", "in [0, 1]"),
        .init(#""typical_p": 0"#, "typical_p", "in (0, 1]"),
        .init(#""repetition_penalty": 0"#, "repetition_penalty", "greater than zero"),
        .init(#""presence_penalty": 2.1"#, "presence_penalty", "in [-2, 2]"),
        .init(#""frequency_penalty": -2.1"#, "frequency_penalty", "in [-2, 2]"),
        .init(#""n": 0"#, "n", "between 1 and 128"),
        .init(#""n": 129"#, "n", "between 1 and 128"),
        .init(#""n": 3, "best_of": 2"#, "best_of", "greater than or equal to n"),
        .init(#""best_of": 2, "stream": true"#, "best_of", "must equal n"),
        .init(#""min_tokens": -1"#, "min_tokens", "greater than or equal to 0"),
        .init(
            #""min_tokens": 9, "max_tokens": 8"#, "min_tokens", "less than or equal to max_tokens"),
        .init(#""max_tokens": -1"#, "max_tokens", "at least"),
        .init(#""max_tokens": 1000"#, "max_tokens", "maximum context length is 64 tokens"),
        .init(#""seed": 1.5"#, "seed", "integer"),
        .init(#""seed": 1e30"#, "seed", "integer"),
        .init(#""stop": """#, "stop", "empty string"),
        .init(#""stop": ["a", 1]"#, "stop", "array of strings"),
        .init(
            #""stop": ["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"]"#,
            "stop", "16"),
        .init(#""stop_token_ids": ["a"]"#, "stop_token_ids", "integers"),
        .init(#""stop_token_ids": [258]"#, "stop_token_ids", "outside the vocabulary"),
        .init(#""logit_bias": {"258": 1}"#, "logit_bias", "no token id"),
        .init(#""logit_bias": {"x": 1}"#, "logit_bias", "no token id"),
        .init(#""logit_bias": {"3": 101}"#, "logit_bias.3", "in [-100, 100]"),
        .init(#""logit_bias": [1]"#, "logit_bias", "must be an object"),
        .init(#""ignore_eos": 1"#, "ignore_eos", "true or false"),
        .init(#""skip_special_tokens": "x""#, "skip_special_tokens", "true or false"),
        .init(#""stream": "yes""#, "stream", "true or false"),
        .init(#""stream_options": {"include_usage": true}"#, "stream_options", "stream is true"),
        .init(
            #""stream": true, "stream_options": {"include_usage": 1}"#,
            "stream_options.include_usage", "true or false"),
        .init(#""priority": "high""#, "priority", "integer"),
        .init(#""timeout": 0"#, "timeout", "greater than 0"),
        .init(#""timeout": "10s""#, "timeout", "number"),
        .init(#""user": 5"#, "user", "must be a string"),
        .init(#""suffix": "end""#, "suffix", "not supported"),
        .init(#""guided_json": {}"#, "guided_json", "not supported"),
        .init(#""use_beam_search": true"#, "use_beam_search", "not supported"),
        .init(
            #""response_format": {"type": "json_object"}"#, "response_format.type", "constrained"),
        .init(#""response_format": {"type": "xml"}"#, "response_format.type", "must be"),
        .init(#""lora": {"id": 0}"#, "lora", "must be an array"),
        .init(#""lora": [{"id": 0}, 1]"#, "lora[1]", "must be an object"),
        .init(#""lora": [{"id": 0, "scale": "x"}]"#, "lora[0].scale", "must be a number"),
        .init(#""lora": [{"id": 0, "scale": 1e99}]"#, "lora[0].scale", "must be a number"),
        .init(
            "\"lora\": [\(Array(repeating: #"{"id": 0}"#, count: 17).joined(separator: ","))]",
            "lora", "at most 16"),
        .init(#""lora": [{"scale": 1}]"#, "lora[0].id", "needed"),
        .init(#""adapter_id": 4"#, "adapter_id", "must be a string"),
    ]

    static let completions: [BadField] = [
        .init(#""logprobs": 21"#, "logprobs", "between 0 and 20"),
        .init(#""logprobs": true"#, "logprobs", "integer"),
        .init(#""echo": 1"#, "echo", "true or false"),
    ]

    static let prompts: [BadField] = [
        .init("{}", "prompt", "is required"),
        .init(#"{"prompt": null}"#, "prompt", "is required"),
        .init(#"{"prompt": 5}"#, "prompt", "must be a string"),
        .init(#"{"prompt": []}"#, "prompt", "cannot be empty"),
        .init(#"{"prompt": ""}"#, "prompt", "no token"),
        .init(#"{"prompt": ["a", 1]}"#, "prompt", "must be a string"),
        .init(#"{"prompt": [1, "a"]}"#, "prompt", "integers"),
        .init(#"{"prompt": [1.5]}"#, "prompt", "must be a string"),
        .init(#"{"prompt": [[1], 2]}"#, "prompt", "must be a string"),
        .init(#"{"prompt": [[1], []]}"#, "prompt", "empty array"),
        .init(#"{"prompt": [-1]}"#, "prompt", "outside the vocabulary"),
        .init(#"{"prompt": [[258]]}"#, "prompt", "outside the vocabulary of 258"),
    ]

    static let chats: [BadField] = [
        .init("{}", "messages", "is required"),
        .init(#"{"messages": []}"#, "messages", "cannot be empty"),
        .init(#"{"messages": ["hi"]}"#, "messages", "must hold objects"),
        .init(#"{"messages": [{"content": "a"}]}"#, "messages[0].role", "is required"),
        .init(#"{"messages": [{"role": "cat", "content": "a"}]}"#, "messages[0].role", "one of"),
        .init(#"{"messages": [{"role": "user"}]}"#, "messages[0].content", "is required"),
        .init(
            #"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}"#,
            "messages[0].content[0].type", "'image_url' is not supported"),
        .init(
            #"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#,
            "messages[0].content[0].text", "is required"),
        .init(
            #"{"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}"#,
            "top_logprobs", "logprobs is true"),
        .init(
            #"{"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 21}"#,
            "top_logprobs", "between 0 and 20"),
        .init(
            #"{"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 0}"#,
            "max_completion_tokens", "at least 1"),
        .init(
            #"{"messages": [{"role": "user", "content": "a"}], "tools": [1]}"#,
            "tools", "must hold objects"),
        .init(
            #"""
            {"messages": [{"role": "user", "content": "a"}], "continue_final_message": true,
             "add_generation_prompt": true}
            """#, "add_generation_prompt", "cannot be true"),
        .init(
            #"{"messages": [{"role": "user", "content": "a"}], "chat_template": "x"}"#,
            "chat_template", "not accepted"),
    ]

    private func check(_ answer: TestServer.Answer, _ bad: BadField) throws {
        #expect(answer.status == 400, "\(answer.body)")
        #expect(try answer.string("error.param") == bad.field, "\(answer.body)")
        let message = try #require(try answer.string("error.message"))
        #expect(message.contains(bad.words), "\(message)")
        #expect(try answer.string("error.type") == "BadRequestError")
        #expect(try answer.integer("error.code") == 400)
    }

    @Test(arguments: shared + completions) func completionField(_ bad: BadField) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        try check(try await server.complete(#"{"prompt": "a", \#(bad.json)}"#), bad)
        #expect(server.engine.requests.isEmpty)
    }

    @Test(arguments: shared) func chatField(_ bad: BadField) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let messages = #""messages": [{"role": "user", "content": "a"}]"#
        try check(try await server.chat("{\(messages), \(bad.json)}"), bad)
    }

    @Test(arguments: prompts) func prompt(_ bad: BadField) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        try check(try await server.complete(bad.json), bad)
    }

    @Test(arguments: chats) func chat(_ bad: BadField) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        try check(try await server.chat(bad.json), bad)
    }

    @Test func fieldsReachTheEngine() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let answer = try await server.complete(
            #"""
            {"prompt": [1, 2], "max_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": -1,
             "min_p": 0.125, "typical_p": 0.75, "repetition_penalty": 1.5, "presence_penalty": -2,
             "frequency_penalty": 2, "logit_bias": {"5": -100, "6": 1}, "seed": -1, "min_tokens": 3,
             "ignore_eos": true, "stop_token_ids": [9], "priority": -4, "logprobs": 2,
             "unknown_field": {"is": "ignored"}, "user": "me", "stop": null}
            """#)
        #expect(answer.status == 200, "\(answer.body)")
        let request = try #require(server.engine.requests.first)
        var sampling = SamplingParameters()
        sampling.temperature = 0.5
        sampling.topP = 0.25
        sampling.topK = 0
        sampling.minP = 0.125
        sampling.typicalP = 0.75
        sampling.repetitionPenalty = 1.5
        sampling.presencePenalty = -2
        sampling.frequencyPenalty = 2
        sampling.logitBias = [5: -100, 6: 1]
        sampling.seed = UInt64.max
        #expect(request.sampling == sampling)
        #expect(request.promptTokens == [1, 2])
        #expect(request.maximumTokenCount == 7)
        #expect(request.minimumTokenCount == 3)
        #expect(request.ignoresEndTokens)
        #expect(request.stopTokenIDs == [9])
        #expect(request.priority == -4)
        #expect(request.logprobCount == 2)
        #expect(request.adapter == nil)
    }

    @Test func promptThatFillsTheContextIsRefusedWithTheNumbers() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let ids = Array(repeating: "1", count: 64).joined(separator: ",")
        let answer = try await server.complete(#"{"prompt": [\#(ids)]}"#)
        #expect(answer.status == 400)
        #expect(
            try answer.string("error.message")
                == "This model's maximum context length is 64 tokens. However, your request has 64 "
                + "input tokens. Please reduce the length of the input messages.")
        // Only evaluating it needs no room for an answer.
        let evaluated = try await server.complete(#"{"prompt": [\#(ids)], "max_tokens": 0}"#)
        #expect(evaluated.status == 200, "\(evaluated.body)")
    }

    @Test func defaultsForTheLengthOfTheAnswer() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        _ = try await server.complete(#"{"prompt": [1, 2, 3]}"#)
        let ids = Array(repeating: "1", count: 60).joined(separator: ",")
        _ = try await server.complete(#"{"prompt": [\#(ids)]}"#)
        _ = try await server.chat(#"{"messages": [{"role": "user", "content": "hi"}]}"#)
        let requests = server.engine.requests
        #expect(requests.map(\.maximumTokenCount).prefix(2) == [16, 4])
        #expect(requests[2].maximumTokenCount == 64 - requests[2].promptTokens.count)
    }
}
