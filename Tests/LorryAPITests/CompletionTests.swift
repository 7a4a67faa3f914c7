import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import Synchronization
import Testing

@Suite struct CompletionTests {
    @Test func answerHasVLLMsShape() async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        let answer = try await server.complete(#"{"model": "base", "prompt": "ab"}"#)
        #expect(answer.status == 200)
        #expect(answer.headers[.contentType] == "application/json")
        let text = answer.body.replacing(/"created":\d+/, with: #""created":0"#)
        #expect(
            text == #"{"id":"cmpl-id1","object":"text_completion","created":0,"model":"base","#
                + #""choices":[{"index":0,"text":"Hello","logprobs":null,"finish_reason":"stop","#
                + #""stop_reason":null}],"usage":{"prompt_tokens":2,"total_tokens":7,"#
                + #""completion_tokens":5,"prompt_tokens_details":{"cached_tokens":0}}}"#)
    }

    @Test func headersOfEveryAnswer() async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        let answer = try await server.complete(#"{"prompt": "ab"}"#)
        let header = { (name: String) in HTTPField.Name(name).flatMap { answer.headers[$0] } }
        #expect(header("x-request-id") == "id1")
        #expect(header("x-lorry-adapter-version") == "base")
        #expect(
            header("server-timing")
                == "queue;dur=1.0, load;dur=0.0, prefill;dur=2.5, decode;dur=0.0")
    }

    @Test(
        arguments: [
            (#""ab""#, [[97, 98]]), (#"["ab", "c"]"#, [[97, 98], [99]]), ("[5, 6]", [[5, 6]]),
            ("[[5], [6, 7]]", [[5], [6, 7]]),
        ] as [(String, [[Int32]])])
    func promptForms(_ json: String, _ tokens: [[Int32]]) async throws {
        let server = try TestServer(
            FakeEngine { request in .init(tokens: request.promptTokens.reversed()) })
        let answer = try await server.complete(#"{"prompt": \#(json), "n": 2}"#)
        #expect(answer.status == 200, "\(answer.body)")
        #expect(server.engine.requests.map(\.promptTokens) == tokens.flatMap { [$0, $0] })
        #expect(server.engine.state.withLock { $0.reservedCounts } == [2 * tokens.count])
        let choices = try #require(try answer.value("choices")?.arrayValue)
        #expect(choices.count == 2 * tokens.count)
        for (index, choice) in choices.enumerated() {
            let object = try #require(choice.objectValue)
            #expect(object["index"]?.integerValue == index)
            let bytes = tokens[index / 2].reversed().map { UInt8($0) }
            #expect(object["text"]?.stringValue == String(decoding: bytes, as: UTF8.self))
        }
    }

    @Test func sequencesOfOnePromptHaveTheirOwnSeeds() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        _ = try await server.complete(#"{"prompt": ["a", "b"], "n": 3, "seed": 10}"#)
        #expect(server.engine.requests.map(\.sampling.seed) == [10, 11, 12, 10, 11, 12])
    }

    @Test func bestOfRanksByMeanLogprob() async throws {
        let engine = FakeEngine { request in
            let seed = Int32(request.sampling.seed ?? 0)
            return .init(tokens: [65 + seed], logprob: [-3, -1, -2][Int(seed)])
        }
        let server = try TestServer(engine)
        let answer = try await server.complete(
            #"{"prompt": "a", "n": 2, "best_of": 3, "seed": 0}"#)
        #expect(try answer.string("choices.0.text") == "B")
        #expect(try answer.string("choices.1.text") == "C")
        #expect(try answer.value("choices.0.logprobs") == .null)
        #expect(try answer.integer("usage.completion_tokens") == 3)
        #expect(engine.requests.allSatisfy { $0.logprobCount == 0 })
    }

    @Test(arguments: [
        ("stop string over three tokens", #""stop": "ell""#, "H", #""stop""#, #""ell""#),
        (
            "with it", #""stop": ["ell"], "include_stop_str_in_output": true"#, "Hell", #""stop""#,
            #""ell""#
        ),
        ("first of several", #""stop": ["o", "l"]"#, "He", #""stop""#, #""l""#),
        ("begun, not met", #""stop": "lox""#, "Hello", #""stop""#, "null"),
        ("length", #""max_tokens": 2"#, "He", #""length""#, "null"),
        ("minimum", #""stop": "l", "min_tokens": 3"#, "Hel", #""stop""#, #""l""#),
    ])
    func ends(
        _ name: String, _ json: String, _ text: String, _ reason: String, _ stop: String
    ) async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        let answer = try await server.complete(#"{"prompt": "a", \#(json)}"#)
        #expect(try answer.string("choices.0.text") == text)
        #expect(answer.body.contains(#""finish_reason":\#(reason),"stop_reason":\#(stop)"#))
        // The same in a stream.
        let stream = try await server.complete(#"{"prompt": "a", "stream": true, \#(json)}"#)
        let texts = try stream.events.dropLast().map { event in
            try StrictJSON(parsing: event.utf8).objectValue?["choices"]?.arrayValue?.first?
                .objectValue?["text"]?.stringValue ?? ""
        }
        #expect(texts.joined() == text)
        #expect(stream.body.contains(#""finish_reason":\#(reason),"stop_reason":\#(stop)"#))
    }

    @Test func stopTokenIsTold() async throws {
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: [72], reason: .stop(token: 33)) })
        let answer = try await server.complete(#"{"prompt": "a", "stop_token_ids": [33]}"#)
        #expect(answer.body.contains(#""finish_reason":"stop","stop_reason":33"#))
    }

    @Test func aStopStringCancelsTheGeneration() async throws {
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: TestTokenizer.tokens("Hello"), hangs: true) })
        let answer = try await server.complete(#"{"prompt": "a", "stop": "l", "max_tokens": 9}"#)
        #expect(try answer.string("choices.0.text") == "He")
        #expect(try answer.integer("usage.completion_tokens") == 3)
        #expect(server.engine.cancelCount == 1)
    }

    @Test func usageCountsTheEndTokenAlsoInStreams() async throws {
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: TestTokenizer.tokens("Hello"), untoldTokenCount: 1) })
        let whole = try await server.complete(#"{"prompt": "ab"}"#)
        #expect(try whole.integer("usage.completion_tokens") == 6)
        let stream = try await server.complete(
            #"{"prompt": "ab", "stream": true, "stream_options": {"include_usage": true}}"#)
        #expect(stream.body.contains(#""completion_tokens":6"#))
    }

    @Test func aVanishingTemperatureIsGreedy() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        _ = try await server.complete(#"{"prompt": "ab", "temperature": 1e-40}"#)
        #expect(server.engine.requests.last?.sampling.temperature == 0)
    }

    @Test func streamIsByteExact() async throws {
        let server = try TestServer(FakeEngine(saying: "Hé"))
        let answer = try await server.complete(
            #"{"prompt": "ab", "stream": true, "stream_options": {"include_usage": true}}"#)
        #expect(answer.status == 200)
        #expect(answer.headers[.contentType] == "text/event-stream; charset=utf-8")
        let head =
            #"data: {"id":"cmpl-id1","object":"text_completion","created":0,"model":"base","#
        let choice = { (text: String, reason: String) in
            head + #""choices":[{"index":0,"text":"\#(text)","logprobs":null,"#
                + #""finish_reason":\#(reason),"stop_reason":null}],"usage":null}"# + "\n\n"
        }
        let expected =
            choice("H", "null") + choice("é", "null") + choice("", #""stop""#)
            + head
            + #""choices":[],"usage":{"prompt_tokens":2,"total_tokens":5,"completion_tokens":3,"#
            + #""prompt_tokens_details":{"cached_tokens":0}}}"# + "\n\n"
            + "data: [DONE]\n\n"
        #expect(answer.body.replacing(/"created":\d+/, with: #""created":0"#) == expected)
    }

    @Test func streamOfSeveralAnswersTellsThemApart() async throws {
        let server = try TestServer(
            FakeEngine { request in .init(tokens: request.promptTokens + request.promptTokens) })
        let answer = try await server.complete(
            #"{"prompt": ["ab", "cd"], "n": 2, "stream": true}"#)
        var texts = ["", "", "", ""]
        var ends = 0
        for event in answer.events.dropLast() {
            let choices = try StrictJSON(parsing: event.utf8).objectValue?["choices"]?.arrayValue
            let choice = try #require(choices?.first?.objectValue)
            texts[try #require(choice["index"]?.integerValue)] += choice["text"]?.stringValue ?? ""
            if choice["finish_reason"]?.stringValue != nil { ends += 1 }
        }
        #expect(texts == ["abab", "abab", "cdcd", "cdcd"])
        #expect(ends == 4)
        #expect(answer.events.last == "[DONE]")
    }

    @Test func logprobsWithEcho() async throws {
        let server = try TestServer(FakeEngine(saying: "cd"))
        let answer = try await server.complete(
            #"{"prompt": "ab", "echo": true, "logprobs": 2, "max_tokens": 1}"#)
        #expect(try answer.string("choices.0.text") == "abc")
        let logprobs = try #require(try answer.value("choices.0.logprobs"))
        #expect(
            answer.body.contains(
                #""logprobs":{"text_offset":[0,1,2],"token_logprobs":[null,-1.25,-0.5],"#
                    + #""tokens":["a","b","c"],"top_logprobs":[null,{"b":-1.25,"A":-2.25},"#
                    + #"{"c":-0.5,"A":-1.5}]}"#), "\(logprobs)")
        #expect(server.engine.requests.first?.promptLogprobCount == 2)
        // Without an answer only the prompt is shown.
        let only = try await server.complete(
            #"{"prompt": "ab", "echo": true, "logprobs": 0, "max_tokens": 0}"#)
        #expect(try only.string("choices.0.text") == "ab")
        #expect(only.body.contains(#""token_logprobs":[null,-1.25]"#))
        #expect(only.body.contains(#""top_logprobs":[null,{"b":-1.25}]"#))
    }

    @Test func echoInAStreamComesFirst() async throws {
        let server = try TestServer(FakeEngine(saying: "cd"))
        let answer = try await server.complete(
            #"{"prompt": [97, 98], "echo": true, "stream": true, "logprobs": 1}"#)
        let first = try #require(answer.events.first)
        #expect(first.contains(#""text":"ab","logprobs":{"text_offset":[0,1]"#), "\(first)")
        #expect(answer.events[1].contains(#""text":"c","logprobs":{"text_offset":[2]"#))
    }

    @Test func tokensAsIDs() async throws {
        let server = try TestServer(FakeEngine(saying: "c"))
        let answer = try await server.complete(
            #"""
            {"prompt": [5], "logprobs": 2, "return_tokens_as_token_ids": true,
             "return_token_ids": true}
            """#)
        #expect(
            answer.body.contains(
                #""tokens":["token_id:99"],"top_logprobs":[{"token_id:99":-0.5,"token_id:65":-1.5}]"#
            ))
        #expect(answer.body.contains(#""prompt_token_ids":[5],"token_ids":[99]"#))
    }

    @Test func whatCannotHappenIsMinus9999() async throws {
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: [72], logprob: -.infinity) })
        let answer = try await server.complete(#"{"prompt": "a", "logprobs": 1}"#)
        #expect(answer.body.contains(#""token_logprobs":[-9999.0]"#), "\(answer.body)")
    }

    @Test func cachedTokensAreCountedOncePerPrompt() async throws {
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: [72], cachedTokenCount: 16) })
        let answer = try await server.complete(#"{"prompt": ["a", "b"], "n": 2}"#)
        #expect(try answer.integer("usage.prompt_tokens_details.cached_tokens") == 32)
        #expect(try answer.integer("usage.prompt_tokens") == 2)
        #expect(try answer.integer("usage.completion_tokens") == 4)
    }

    /// Refused before a model is resolved or a place is asked for, whatever API asks.
    @Test func tooManyPromptsAreRefusedAtOnce() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let prompts = Array(repeating: #""a""#, count: 4097).joined(separator: ",")
        for (path, field) in [
            ("/v1/completions", "prompt"), ("/completion", "prompt"), ("/generate", "text"),
        ] {
            let answer = try await server.post(path, "{\"\(field)\": [\(prompts)]}")
            #expect(answer.status == 400, "\(path)")
            #expect(answer.body.contains("at most 4096 prompts, got 4097"), "\(answer.body)")
        }
    }

    @Test func theCacheSaltReachesTheEngine() async throws {
        let engine = FakeEngine { _ in .init(tokens: [72]) }
        let server = try TestServer(engine)
        for body in [#"{"prompt": "a", "cache_salt": "mine"}"#, #"{"prompt": "a"}"#] {
            #expect(try await server.complete(body).status == 200)
        }
        #expect(engine.requests.map(\.cacheSalt) == ["mine", ""])
        let long = String(repeating: "x", count: 257)
        for salt in ["", long] {
            let answer = try await server.complete(
                "{\"prompt\": \"a\", \"cache_salt\": \"\(salt)\"}")
            #expect(answer.status == 400)
            #expect(try answer.string("error.param") == "cache_salt")
        }
    }

    @Test func characterInManyTokensIsNotBroken() async throws {
        let server = try TestServer(FakeEngine(saying: "🦊é"))
        let answer = try await server.complete(#"{"prompt": "a", "stream": true}"#)
        let texts = try answer.events.dropLast().map { event in
            try StrictJSON(parsing: event.utf8).objectValue?["choices"]?.arrayValue?.first?
                .objectValue?["text"]?.stringValue
        }
        #expect(texts == ["🦊", "é", ""])
    }
}
