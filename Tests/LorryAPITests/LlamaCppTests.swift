import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import Testing

/// llama.cpp's routes, by the calls of `tools/server/README.md` and of its own tests.
@Suite struct LlamaCppTests {
    private static let settings =
        #""generation_settings":{"seed":4294967295,"temperature":0.8,"top_k":40,"top_p":0.95,"#
        + #""min_p":0.05,"typical_p":1.0,"repeat_last_n":-1,"repeat_penalty":1.0,"#
        + #""presence_penalty":0.0,"frequency_penalty":0.0,"stop":[],"max_tokens":MAX,"#
        + #""n_predict":MAX,"ignore_eos":false,"stream":STREAM,"logit_bias":[],"n_probs":0}"#
    private static let timings =
        #""timings":{"cache_n":0,"prompt_n":2,"prompt_ms":2.5,"prompt_per_token_ms":1.25,"#
        + #""prompt_per_second":800.0,"predicted_n":5,"predicted_ms":0.0,"#
        + #""predicted_per_token_ms":0.0,"predicted_per_second":null}"#

    private static func settings(maximum: Int, streams: Bool) -> String {
        settings.replacing("MAX", with: "\(maximum)").replacing("STREAM", with: "\(streams)")
    }

    @Test(arguments: ["/completion", "/completions"])
    func aWholeAnswer(_ path: String) async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        try await DocumentedCall(
            path, #"{"prompt": "ab", "n_predict": 32}"#,
            #"{"index":0,"content":"Hello","tokens":[],"id_slot":-1,"stop":true,"model":"base","#
                + #""tokens_predicted":5,"tokens_evaluated":2,"#
                + Self.settings(maximum: 32, streams: false)
                + #","prompt":"ab","has_new_line":false,"truncated":false,"stop_type":"eos","#
                + #""stopping_word":"","tokens_cached":0,"# + Self.timings + "}"
        ).check(on: server)
    }

    @Test func aStream() async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        let answer = try await server.post(
            "/completion", #"{"prompt": "ab", "n_predict": 5, "stream": true}"#)
        #expect(answer.headers[.contentType] == "text/event-stream; charset=utf-8")
        #expect(answer.events.count == 6)
        for (index, character) in "Hello".enumerated() {
            #expect(
                answer.events[index]
                    == #"{"index":0,"content":"\#(character)","tokens":[\#(character.asciiValue ?? 0)],"#
                    + #""stop":false,"id_slot":-1,"tokens_predicted":\#(index + 1),"tokens_evaluated":2}"#
            )
        }
        #expect(
            answer.events.last
                == #"{"index":0,"content":"","tokens":[],"id_slot":-1,"stop":true,"model":"base","#
                + #""tokens_predicted":5,"tokens_evaluated":2,"#
                + Self.settings(maximum: 5, streams: true)
                + #","prompt":"ab","has_new_line":false,"truncated":false,"stop_type":"limit","#
                + #""stopping_word":"","tokens_cached":0,"# + Self.timings + "}")
    }

    @Test(
        arguments: [
            (#""ab""#, [[97, 98]]), ("[5, 6]", [[5, 6]]), (#"[5, "ab", 6]"#, [[5, 97, 98, 6]]),
            (#"["ab", "c"]"#, [[97, 98], [99]]), (#"[[5], "ab"]"#, [[5], [97, 98]]),
            (
                #"[[12, "ab"], [5, 6], "c", {"prompt_string": "d"}]"#,
                [[12, 97, 98], [5, 6], [99], [100]]
            ),
        ] as [(String, [[Int32]])])
    func promptForms(_ json: String, _ tokens: [[Int32]]) async throws {
        let server = try TestServer(FakeEngine { .init(tokens: $0.promptTokens.reversed()) })
        let answer = try await server.post("/completion", #"{"prompt": \#(json)}"#)
        #expect(answer.status == 200, "\(answer.body)")
        #expect(server.engine.requests.map(\.promptTokens) == tokens)
        if tokens.count == 1 {
            #expect(try answer.integer("tokens_evaluated") == tokens[0].count)
        } else {
            let results = try #require(try answer.json.arrayValue)
            #expect(
                results.map { $0.objectValue?["tokens_evaluated"]?.integerValue }
                    == tokens.map(\.count))
            #expect(
                results.map { $0.objectValue?["index"]?.integerValue } == Array(0..<tokens.count))
        }
    }

    @Test func fieldsReachTheEngine() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let answer = try await server.post(
            "/completion",
            #"""
            {"prompt": "ab", "n_predict": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.5,
             "min_p": 0.25, "typical_p": 0.75, "repeat_penalty": 1.5, "repeat_last_n": -1,
             "presence_penalty": 0.5, "frequency_penalty": 2.5, "seed": 42, "ignore_eos": true,
             "logit_bias": [[65, 1.5], ["BC", -0.5], [68, false]], "cache_prompt": false,
             "id_slot": 3, "mirostat": 0, "grammar": ""}
            """#)
        #expect(answer.status == 200, "\(answer.body)")
        let request = try #require(server.engine.requests.first)
        var sampling = SamplingParameters()
        sampling.temperature = 0.5
        sampling.topK = 3
        sampling.topP = 0.5
        sampling.minP = 0.25
        sampling.typicalP = 0.75
        sampling.repetitionPenalty = 1.5
        sampling.presencePenalty = 0.5
        sampling.frequencyPenalty = 2.5
        sampling.seed = 42
        sampling.logitBias = [65: 1.5, 66: -0.5, 67: -0.5, 68: -.infinity]
        #expect(request.sampling == sampling)
        #expect(request.maximumTokenCount == 7)
        #expect(request.ignoresEndTokens)
        #expect(try answer.value("generation_settings.logit_bias.3.bias") == .null)
    }

    @Test(
        arguments: [
            (#""temperature": -1"#, 0), (#""temperature": 0"#, 0), (#""temperature": 2"#, 2),
        ] as [(String, Float)])
    func temperatures(_ json: String, _ expected: Float) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        _ = try await server.post("/completion", "{\"prompt\": \"a\", \(json)}")
        #expect(server.engine.requests.first?.sampling.temperature == expected)
    }

    @Test func countsAndSeedsThatMeanTheirOwn() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        for json in [#""n_predict": -1"#, #""n_predict": -2"#, #""seed": -1"#, #""top_k": 0"#] {
            let answer = try await server.post("/completion", "{\"prompt\": \"ab\", \(json)}")
            #expect(answer.status == 200)
            let request = try #require(server.engine.requests.last)
            #expect(request.maximumTokenCount == 62)
            #expect(request.sampling.seed == nil)
        }
        #expect(server.engine.requests.last?.sampling.topK == 0)
        let none = try await server.post("/completion", #"{"prompt": "ab", "n_predict": 0}"#)
        #expect(try none.string("content") == "")
        #expect(try none.string("stop_type") == "limit")
        let two = try await server.post("/completion", #"{"prompt": "ab", "n_cmpl": 2}"#)
        #expect(try two.json.arrayValue?.count == 2)
    }

    @Test func stopsTokensAndProbabilities() async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        let answer = try await server.post(
            "/completion",
            #"{"prompt": "ab", "stop": ["", "lo"], "return_tokens": true, "n_probs": 2}"#)
        #expect(try answer.string("content") == "Hel")
        #expect(try answer.string("stop_type") == "word")
        #expect(try answer.string("stopping_word") == "lo")
        #expect(try answer.value("tokens")?.arrayValue?.count == 5)
        let first = try #require(try answer.value("completion_probabilities.0"))
        #expect(
            try first
                == StrictJSON(
                    parsing: #"""
                        {"id": 72, "token": "H", "bytes": [72], "logprob": -0.5, "top_logprobs": [
                          {"id": 72, "token": "H", "bytes": [72], "logprob": -0.5},
                          {"id": 65, "token": "A", "bytes": [65], "logprob": -1.5}]}
                        """#.utf8))
    }

    @Test(arguments: [
        RefusedField(#""grammar": "root ::= x""#, "grammar is not supported."),
        RefusedField(#""json_schema": {}"#, "json_schema is not supported."),
        RefusedField(#""mirostat": 2"#, "mirostat is not supported."),
        RefusedField(#""dynatemp_range": 0.5"#, "dynatemp_range is not supported."),
        RefusedField(#""dry_multiplier": 0.8"#, "dry_multiplier is not supported."),
        RefusedField(#""xtc_probability": 0.5"#, "xtc_probability is not supported."),
        RefusedField(#""top_n_sigma": 1.5"#, "top_n_sigma is not supported."),
        RefusedField(#""samplers": ["top_k"]"#, "samplers is not supported."),
        RefusedField(#""n_indent": 2"#, "n_indent is not supported."),
        RefusedField(#""t_max_predict_ms": 5"#, "t_max_predict_ms is not supported."),
        RefusedField(#""post_sampling_probs": true"#, "post_sampling_probs is not supported."),
        RefusedField(
            #""repeat_penalty": 1.1, "repeat_last_n": 64"#,
            "repeat_last_n may be -1 or 0: penalties look at everything, or at nothing."),
        RefusedField(#""n_probs": 21"#, "n_probs must be between 0 and 20, got 21."),
        RefusedField(#""logit_bias": [[1]]"#, "logit_bias must be an object or an array of pairs."),
        RefusedField(
            #""logit_bias": [[1, true]]"#, "logit_bias must have numbers or false as biases."),
        RefusedField(#""top_p": 0"#, "top_p must be greater than 0, got 0.0."),
        RefusedField(#""lora": {}"#, "lora must be an array."),
    ])
    func refusals(_ field: RefusedField) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let answer = try await server.post("/completion", "{\"prompt\": \"a\", \(field.json)}")
        #expect(answer.status == 400)
        #expect(
            answer.body == #"{"error":{"code":400,"message":"\#(field.words)","#
                + #""type":"invalid_request_error"}}"#)
        #expect(server.engine.requests.isEmpty)
    }

    @Test func penaltiesAreOffWhereTheyLookAtNothing() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        _ = try await server.post(
            "/completion", #"{"prompt": "a", "repeat_penalty": 1.3, "repeat_last_n": 0}"#)
        #expect(server.engine.requests.first?.sampling.repetitionPenalty == 1)
    }

    @Test func errorsHaveItsShape() async throws {
        let keys = try APIKeys(yaml: "- {key: key-of-blue, tenant: blue, roles: [inference]}")
        let server = try TestServer(FakeEngine(saying: "x"), keys: keys)
        for (key, body, status, type) in [
            (nil, "{}", 401, "authentication_error"),
            ("key-of-blue", "{}", 400, "invalid_request_error"),
            ("key-of-blue", "{", 400, "invalid_request_error"),
            ("key-of-blue", #"{"prompt": "a", "model": "nobody"}"#, 404, "not_found_error"),
        ] {
            let answer = try await server.post("/completion", body, key: key)
            #expect(answer.status == status)
            #expect(try answer.string("error.type") == type)
            #expect(try answer.integer("error.code") == status)
        }
        let setting = try await server.post("/lora-adapters", "[]", key: "key-of-blue")
        #expect(setting.status == 403)
        #expect(try setting.string("error.type") == "permission_error")
    }

    @Test func aFailureInsideAStreamIsAnEvent() async throws {
        let engine = FakeEngine { _ in
            .init(tokens: [72], failure: .adapterLoadFailed(name: "a", reason: "gone"))
        }
        let answer = try await TestServer(engine).post(
            "/completion", #"{"prompt": "ab", "stream": true}"#)
        #expect(
            answer.events.last
                == #"{"error":{"code":500,"message":"The adapter 'a' could not be loaded: gone","#
                + #""type":"server_error"}}"#)
        #expect(!answer.body.contains("[DONE]"))
    }

    @Test(arguments: [
        DocumentedCall("/tokenize", #"{"content": "ab"}"#, #"{"tokens":[97,98]}"#),
        DocumentedCall(
            "/tokenize", #"{"content": "a\u00e1", "with_pieces": true}"#,
            #"{"tokens":[{"id":97,"piece":"a"},{"id":195,"piece":[195]},{"id":161,"piece":[161]}]}"#
        ),
        DocumentedCall(
            "/tokenize", #"{"content": "a", "parse_special": false}"#, status: 400,
            #"{"error":{"message":"parse_special may only be true.","type":"BadRequestError","#
                + #""param":"parse_special","code":400}}"#),
        DocumentedCall(
            "/apply-template", #"{"messages": [{"role": "user", "content": "hi"}]}"#,
            #"{"prompt":"<begin><user>hi\n<assistant>"}"#),
    ])
    func textRoutes(_ call: DocumentedCall) async throws {
        try await call.check(on: TestServer(FakeEngine(saying: "x")))
    }

    @Test func properties() async throws {
        let answer = try await TestServer(FakeEngine(saying: "x")).get("/props")
        #expect(answer.status == 200)
        #expect(try answer.integer("default_generation_settings.n_ctx") == 64)
        #expect(try answer.integer("default_generation_settings.params.top_k") == 40)
        #expect(try answer.string("chat_template") == TestTokenizer.template)
        #expect(try answer.string("bos_token") == "<begin>")
        #expect(try answer.value("modalities.vision") == .bool(false))
    }
}
