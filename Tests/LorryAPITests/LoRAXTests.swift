import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import Synchronization
import Testing

/// LoRAX's routes, by the calls of its documents and of its Python client.
@Suite struct LoRAXTests {
    private static func token(_ character: Character, _ id: Int) -> String {
        #"{"id":\#(id),"text":"\#(character)","logprob":-0.5,"special":false,"skipped":false}"#
    }

    private static let end =
        #"{"id":256,"text":"<end>","logprob":null,"special":true,"skipped":false}"#

    /// What `lorax-client` sends, with every field that it knows.
    private static let clientsBody = #"""
        {"inputs": "ab", "stream": STREAM, "parameters": {"adapter_id": null,
         "adapter_source": null, "merged_adapters": null, "api_token": null, "do_sample": false,
         "max_new_tokens": 9, "ignore_eos_token": false, "repetition_penalty": null,
         "return_full_text": false, "stop": [], "seed": null, "temperature": null, "top_k": null,
         "top_p": null, "truncate": null, "typical_p": null, "best_of": null, "watermark": false,
         "details": true, "decoder_input_details": false, "return_k_alternatives": null,
         "response_format": null}}
        """#

    @Test func itsClientsCall() async throws {
        let server = try TestServer(FakeEngine(saying: "Hi"))
        try await DocumentedCall(
            "/", Self.clientsBody.replacing("STREAM", with: "false"),
            #"[{"generated_text":"Hi","details":{"finish_reason":"eos_token","prompt_tokens":2,"#
                + #""generated_tokens":2,"skipped_tokens":0,"seed":null,"prefill":[],"tokens":["#
                + "\(Self.token("H", 72)),\(Self.token("i", 105)),\(Self.end)]}}]"
        ).check(on: server)
        #expect(server.engine.requests.first?.sampling.temperature == 0)
    }

    @Test(arguments: ["/", "/generate_stream"])
    func itsClientsStream(_ path: String) async throws {
        let server = try TestServer(FakeEngine(saying: "Hi"))
        let answer = try await server.post(
            path, Self.clientsBody.replacing("STREAM", with: "true"))
        #expect(
            answer.events == [
                #"{"token":\#(Self.token("H", 72)),"generated_text":null,"details":null}"#,
                #"{"token":\#(Self.token("i", 105)),"generated_text":null,"details":null}"#,
                #"{"token":\#(Self.end),"generated_text":"Hi","details":{"finish_reason":"eos_token","#
                    + #""prompt_tokens":2,"generated_tokens":2,"seed":null}}"#,
            ])
    }

    /// The last token's event tells the end, where it is known to be the last.
    @Test(arguments: [
        (#""max_new_tokens": 2"#, "length", "He"), (#""stop": ["el"]"#, "stop_sequence", "Hel"),
    ])
    func theLastEventTellsTheEnd(_ json: String, _ reason: String, _ text: String) async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        let answer = try await server.post(
            "/generate_stream", #"{"inputs": "ab", "parameters": {\#(json), "details": true}}"#)
        #expect(answer.events.count == text.count)
        let events = try answer.events.map { try StrictJSON(parsing: $0.utf8).objectValue }
        let told = events.compactMap { $0?["token"]?.objectValue?["text"]?.stringValue }
        #expect(told.joined() == text)
        let last = try #require(events.last ?? nil)
        #expect(last["generated_text"] == .string(text))
        #expect(last["details"]?.objectValue?["finish_reason"] == .string(reason))
        #expect(events.dropLast().allSatisfy { $0?["generated_text"] == .null })
    }

    @Test func generateAnswersWithoutAnArray() async throws {
        let server = try TestServer(FakeEngine(saying: "Hi"))
        for call in [
            DocumentedCall("/generate", #"{"inputs": "ab"}"#, #"{"generated_text":"Hi"}"#),
            DocumentedCall(
                "/generate",
                #"{"inputs": "ab", "parameters": {"return_full_text": true, "max_new_tokens": 1}}"#,
                #"{"generated_text":"abH"}"#),
        ] { try await call.check(on: server) }
    }

    @Test func detailsOfThePromptAndAlternatives() async throws {
        let server = try TestServer(FakeEngine(saying: "H"))
        let answer = try await server.post(
            "/generate",
            #"{"inputs": "ab", "parameters": {"decoder_input_details": true, "return_k_alternatives": 2}}"#
        )
        #expect(
            answer.body.contains(
                #""prefill":[{"id":97,"text":"a","logprob":null},{"id":98,"text":"b","logprob":-1.25}]"#
            ))
        #expect(
            answer.body.contains(
                #""alternative_tokens":[{"id":72,"text":"H","logprob":-0.5},"#
                    + #"{"id":65,"text":"A","logprob":-1.5}],"skipped":false"#))
    }

    @Test(
        arguments: [
            ("{}", 0), (#"{"do_sample": true}"#, 1), (#"{"temperature": 0.5}"#, 0.5),
            (#"{"temperature": 0, "do_sample": true}"#, 0), (#"{"top_k": 3}"#, 1),
            (#"{"top_p": 0.5}"#, 1), (#"{"typical_p": 0.5}"#, 1), (#"{"temperature": 1}"#, 0),
        ] as [(String, Float)])
    func samplingIsAskedForByAnyOfItsFields(_ parameters: String, _ expected: Float) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let answer = try await server.post(
            "/generate", #"{"inputs": "a", "parameters": \#(parameters)}"#)
        #expect(answer.status == 200, "\(answer.body)")
        #expect(server.engine.requests.first?.sampling.temperature == expected)
    }

    @Test func fieldsReachTheEngine() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let answer = try await server.post(
            "/generate",
            #"""
            {"inputs": "abc", "parameters": {"max_new_tokens": 7, "temperature": 0.5, "top_k": 3,
             "top_p": 0.5, "typical_p": 0.75, "repetition_penalty": 1.5, "seed": 9,
             "frequency_penalty": 0.5, "presence_penalty": 1.5, "ignore_eos_token": true,
             "truncate": 2, "details": true}}
            """#)
        #expect(try answer.integer("details.seed") == 9)
        let request = try #require(server.engine.requests.first)
        var sampling = SamplingParameters()
        sampling.temperature = 0.5
        sampling.topK = 3
        sampling.topP = 0.5
        sampling.typicalP = 0.75
        sampling.repetitionPenalty = 1.5
        sampling.frequencyPenalty = 0.5
        sampling.presencePenalty = 1.5
        sampling.seed = 9
        #expect(request.sampling == sampling)
        #expect(request.maximumTokenCount == 7 && request.ignoresEndTokens)
        #expect(request.promptTokens == [98, 99])
    }

    @Test func theBestOfSeveral() async throws {
        let engine = FakeEngine { request in
            let isFirst = (request.sampling.seed ?? 0) % 2 == 0
            return .init(tokens: [isFirst ? 65 : 66], logprob: isFirst ? -3 : -1)
        }
        let answer = try await TestServer(engine).post(
            "/generate",
            #"{"inputs": "a", "parameters": {"best_of": 2, "do_sample": true, "details": true}}"#)
        #expect(try answer.string("generated_text") == "B")
        #expect(try answer.value("details.best_of_sequences")?.arrayValue?.count == 1)
        #expect(try answer.string("details.best_of_sequences.0.generated_text") == "A")
        let seeds = engine.requests.compactMap { $0.sampling.seed.flatMap { Int(exactly: $0) } }
        #expect(try answer.integer("details.seed") == seeds.first { $0 % 2 == 1 })
    }

    @Test func adaptersAndTheirSums() async throws {
        let server = try TestServer(.sayingWhichAdapter()) { services in
            services.combinations = AdapterCombinations(
                describeSum: { _ in
                    AdapterDescription(
                        method: "composition", rank: 8, targets: [], byteCount: 1,
                        parameterCount: 1)
                },
                loadSum: { _ in throw AdapterError(.unreadable, "never loaded here") },
                merge: { _, _ in throw AdapterError(.unsupported, "merges nothing") })
        }
        try await server.addAdapter("alpha", "first weights")
        try await server.addAdapter("beta", "other weights")
        for (parameters, expected) in [
            (#"{"adapter_id": "alpha", "adapter_source": "local"}"#, "alpha"),
            (#"{"adapter_id": ""}"#, "base"), (#"{"adapter_id": "__base_model__"}"#, "base"),
            (#"{"merged_adapters": {"ids": ["beta"], "weights": [1]}}"#, "beta"),
            (
                #"{"merged_adapters": {"ids": ["alpha", "beta"], "weights": [2.0, 0.3], "density": 0.2}}"#,
                "alpha+beta"
            ),
        ] {
            let answer = try await server.post(
                "/generate", #"{"inputs": "a", "parameters": \#(parameters)}"#)
            let text = try #require(try answer.string("generated_text"), "\(answer.body)")
            #expect(Set(text.split(separator: "+")) == Set(expected.split(separator: "+")))
        }
        let unknown = try await server.post(
            "/", #"{"inputs": "a", "parameters": {"adapter_id": "nobody"}}"#)
        #expect(unknown.status == 404)
        #expect(
            unknown.body
                == #"{"error":"The model `nobody` does not exist.","error_type":"not_found"}"#)
    }

    @Test(arguments: [
        RefusedField("", "`inputs` cannot be empty"),
        RefusedField(
            #""merged_adapters": {"ids": ["a"], "weights": [1], "merge_strategy": "ties"}"#,
            "parameters.merged_adapters.merge_strategy 'ties' is not supported: only 'linear' is."),
        RefusedField(
            #""merged_adapters": {"ids": ["a", "b"], "weights": [1]}"#,
            "parameters.merged_adapters.weights must be as many as ids, got 1."),
        RefusedField(
            #""merged_adapters": {"ids": ["a"]}, "adapter_id": "b""#,
            "at most one of `adapter_id` or `merged_adapters` may be provided"),
        RefusedField(#""watermark": true"#, "parameters.watermark is not supported."),
        RefusedField(
            #""response_format": {"type": "json_object"}"#,
            "parameters.response_format.type may only be 'text': constrained output is not "
                + "supported."),
        RefusedField(#""top_k": 0"#, "parameters.top_k must be strictly positive, got 0."),
        RefusedField(
            #""max_new_tokens": 0"#, "parameters.max_new_tokens must be strictly positive, got 0."),
        RefusedField(#""best_of": 2"#, "you must use sampling when `best_of` is > 1"),
        RefusedField(
            #""best_of": 2, "do_sample": true, "seed": 1"#,
            "`seed` must not be set when `best_of` > 1"),
    ])
    func refusals(_ field: RefusedField) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        for name in ["a", "b"] { try await server.addAdapter(name, "weights of \(name)") }
        let inputs = field.json.isEmpty ? "" : "a"
        let answer = try await server.post(
            "/generate", #"{"inputs": "\#(inputs)", "parameters": {\#(field.json)}}"#)
        #expect(answer.status == 422)
        #expect(try answer.string("error") == "Input validation error: \(field.words)")
        #expect(try answer.string("error_type") == "validation")
        #expect(server.engine.requests.isEmpty)
    }

    @Test func errorsHaveItsStatuses() async throws {
        for (error, status, type) in [
            (EngineError.queueFull(retryAfter: .seconds(2)), 429, "overloaded"),
            (.shuttingDown, 503, "overloaded"),
        ] {
            let engine = FakeEngine(saying: "x")
            engine.state.withLock { $0.reserveError = error }
            let answer = try await TestServer(engine).post("/", #"{"inputs": "a"}"#)
            #expect(answer.status == status)
            #expect(try answer.string("error_type") == type)
        }
        let failure = EngineError.adapterLoadFailed(name: "a", reason: "gone")
        let early = try await TestServer(FakeEngine { _ in .init(failure: failure) }).post(
            "/", #"{"inputs": "a"}"#)
        #expect(early.status == 424)
        #expect(try early.string("error_type") == "generation")
        let late = try await TestServer(FakeEngine { _ in .init(tokens: [72], failure: failure) })
            .post("/generate_stream", #"{"inputs": "a"}"#)
        #expect(
            late.events.last
                == #"{"error":"Request failed during generation: The adapter 'a' could not be "#
                + #"loaded: gone","error_type":"generation"}"#)
        let server = try TestServer(FakeEngine(saying: "x"))
        #expect(try await server.post("/", "{").status == 422)
        #expect(try await server.post("/generate_stream", "[]").status == 422)
        let streamed = try await server.post(
            "/generate_stream", #"{"inputs": "a", "parameters": {"decoder_input_details": true}}"#)
        #expect(streamed.status == 422)
    }

    @Test func aboutTheServer() async throws {
        let answer = try await TestServer(FakeEngine(saying: "x")).get("/info")
        #expect(try answer.string("model_id") == "base")
        #expect(try answer.integer("max_total_tokens") == 64)
        #expect(try answer.string("version") == "1.2.3")
    }
}
