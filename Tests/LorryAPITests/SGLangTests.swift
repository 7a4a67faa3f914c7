import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import Synchronization
import Testing

/// SGLang's routes, by the calls of `docs/basic_usage` and `docs/advanced_features/lora.ipynb`.
@Suite struct SGLangTests {
    @Test func aWholeAnswer() async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        try await DocumentedCall(
            "/generate",
            #"{"text": "ab", "sampling_params": {"temperature": 0, "max_new_tokens": 32}}"#,
            #"{"text":"Hello","output_ids":[72,101,108,108,111],"meta_info":{"id":"id1","#
                + #""finish_reason":{"type":"stop","matched":256},"prompt_tokens":2,"#
                + #""weight_version":"base","completion_tokens":5,"cached_tokens":0,"#
                + #""e2e_latency":0.0035}}"#
        ).check(on: server)
        #expect(server.engine.requests.first?.sampling.temperature == 0)
        #expect(server.engine.requests.first?.maximumTokenCount == 32)
    }

    @Test func aBatchWithAnAdapterForEachPrompt() async throws {
        let server = try TestServer(.sayingWhichAdapter())
        let version = try await server.addAdapter("lora0").version.digest
        let answer = try await server.post(
            "/generate",
            #"""
            {"text": ["ab", "c"], "sampling_params": {"max_new_tokens": 32, "temperature": 0},
             "lora_path": ["lora0", null]}
            """#)
        #expect(try answer.string("0.text") == "lora0")
        #expect(try answer.string("0.meta_info.weight_version") == version)
        #expect(try answer.string("1.text") == "base")
        #expect(try answer.integer("1.meta_info.prompt_tokens") == 1)
        let header = try #require(HTTPField.Name("x-lorry-adapter-version"))
        #expect(answer.headers[header] == "\(version), base")
        // Both are one request of the tenant's, booked under what each ran on.
        let metrics = try await server.get("/metrics").body
        for adapter in ["lora0", ""] {
            #expect(
                metrics.contains(
                    #"lorry_requests_total{adapter="\#(adapter)",outcome="succeeded",tenant="default"} 1"#
                ), "\(metrics)")
        }
        #expect(server.engine.state.withLock { $0.reservedCounts } == [2])
    }

    /// Clients and proxies give up on heads of many kilobytes.
    @Test(arguments: [60, 70])
    func aBatchOfManyAdaptersNamesEachVersionWithItsAnswer(count: Int) async throws {
        let server = try TestServer(.sayingWhichAdapter())
        var versions: [String] = []
        for index in 0..<count {
            versions.append(
                try await server.addAdapter("lora\(index)", "\(index)").version.digest)
        }
        let names = (0..<count).map { "\"lora\($0)\"" }.joined(separator: ",")
        let texts = (0..<count).map { _ in "\"a\"" }.joined(separator: ",")
        let answer = try await server.post(
            "/generate",
            #"{"text": [\#(texts)], "sampling_params": {"max_new_tokens": 2}, "#
                + #""lora_path": [\#(names)]}"#)
        #expect(answer.status == 200, "\(answer.body.prefix(300))")
        for (index, version) in versions.enumerated() {
            #expect(try answer.string("\(index).meta_info.weight_version") == version)
        }
        let header = try #require(HTTPField.Name("x-lorry-adapter-version"))
        #expect(
            answer.headers[header] == (count == 60 ? versions.joined(separator: ", ") : nil))
    }

    @Test func aStreamRepeatsTheTextSoFar() async throws {
        let server = try TestServer(FakeEngine(saying: "Hi"))
        let answer = try await server.post(
            "/generate",
            #"{"text": "ab", "stream": true, "sampling_params": {"max_new_tokens": 9}, "rid": "r"}"#
        )
        #expect(
            answer.events == [
                #"{"text":"H","output_ids":[72],"meta_info":{"id":"r","finish_reason":null,"#
                    + #""prompt_tokens":2,"weight_version":"base","completion_tokens":1,"#
                    + #""cached_tokens":0}}"#,
                #"{"text":"Hi","output_ids":[72,105],"meta_info":{"id":"r","finish_reason":null,"#
                    + #""prompt_tokens":2,"weight_version":"base","completion_tokens":2,"#
                    + #""cached_tokens":0}}"#,
                #"{"text":"Hi","output_ids":[72,105],"meta_info":{"id":"r","#
                    + #""finish_reason":{"type":"stop","matched":256},"prompt_tokens":2,"#
                    + #""weight_version":"base","completion_tokens":2,"cached_tokens":0,"#
                    + #""e2e_latency":0.0035}}"#,
                "[DONE]",
            ])
    }

    @Test func fieldsReachTheEngine() async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        let answer = try await server.post(
            "/generate",
            #"""
            {"input_ids": [[5, 6], [7]], "sampling_params": {"max_new_tokens": 7,
             "min_new_tokens": 2, "temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.25,
             "repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 1.5,
             "stop_token_ids": [9], "ignore_eos": true, "sampling_seed": 3, "n": 2}}
            """#)
        #expect(answer.status == 200, "\(answer.body)")
        #expect(try answer.json.arrayValue?.count == 4)
        let requests = server.engine.requests
        #expect(requests.map(\.promptTokens) == [[5, 6], [5, 6], [7], [7]])
        #expect(requests.map(\.sampling.seed) == [3, 4, 3, 4])
        let first = try #require(requests.first)
        #expect(first.maximumTokenCount == 7 && first.minimumTokenCount == 2)
        #expect(first.sampling.topK == 3 && first.sampling.minP == 0.25)
        #expect(first.stopTokenIDs == [9] && first.ignoresEndTokens)
    }

    @Test func defaultsAndEnds() async throws {
        let server = try TestServer(FakeEngine(saying: "Hello"))
        let stop = try await server.post(
            "/generate", #"{"text": "ab", "sampling_params": {"stop": "ll"}}"#)
        #expect(try stop.string("text") == "He")
        #expect(try stop.string("meta_info.finish_reason.matched") == "ll")
        #expect(server.engine.requests.last?.maximumTokenCount == 62)
        let untrimmed = try await server.post(
            "/generate", #"{"text": "ab", "sampling_params": {"stop": "ll", "no_stop_trim": true}}"#
        )
        #expect(try untrimmed.string("text") == "Hell")
        let length = try await server.post(
            "/generate", #"{"text": "ab", "sampling_params": {"max_new_tokens": 2}}"#)
        #expect(try length.string("meta_info.finish_reason.type") == "length")
        #expect(try length.integer("meta_info.finish_reason.length") == 2)
    }

    @Test func logprobs() async throws {
        let server = try TestServer(FakeEngine(saying: "H"))
        let answer = try await server.post(
            "/generate",
            #"""
            {"text": "ab", "return_logprob": true, "logprob_start_len": 0, "top_logprobs_num": 2,
             "return_text_in_logprobs": true}
            """#)
        let about = try #require(try answer.value("meta_info")?.objectValue)
        let expected = try StrictJSON(
            parsing: #"""
                {"in": [[null, 97, "a"], [-1.25, 98, "b"]], "out": [[-0.5, 72, "H"]],
                 "top": [[[-0.5, 72, "H"], [-1.5, 65, "A"]]],
                 "topin": [null, [[-1.25, 98, "b"], [-2.25, 65, "A"]]]}
                """#.utf8
        ).objectValue
        #expect(about["input_token_logprobs"] == expected?["in"])
        #expect(about["output_token_logprobs"] == expected?["out"])
        #expect(about["output_top_logprobs"] == expected?["top"])
        #expect(about["input_top_logprobs"] == expected?["topin"])
        let plain = try await server.post(
            "/generate", #"{"text": "ab", "return_logprob": true}"#)
        #expect(
            try plain.value("meta_info.output_token_logprobs.0")
                == .array([
                    .number(-0.5), .integer(72), .null,
                ]))
        #expect(try plain.value("meta_info.input_token_logprobs") == .array([]))
    }

    @Test(arguments: [
        RefusedField(#""text": 3"#, "text must be a string or an array of strings."),
        RefusedField(#""x": 1"#, "text or input_ids is required."),
        RefusedField(#""text": "a", "input_ids": [1]"#, "input_ids cannot be given beside text."),
        RefusedField(#""text": []"#, "text cannot be empty."),
        RefusedField(#""text": "a", "image_data": "x.png""#, "image_data is not supported."),
        RefusedField(
            #""text": "a", "return_hidden_states": true"#, "return_hidden_states is not supported."),
        RefusedField(
            #""text": "a", "token_ids_logprob": [1]"#, "token_ids_logprob is not supported."),
        RefusedField(
            #""text": "a", "sampling_params": {"regex": "x"}"#,
            "sampling_params.regex is not supported."),
        RefusedField(
            #""text": "a", "sampling_params": {"temperature": -1}"#,
            "sampling_params.temperature must be non-negative, got -1.0."),
        RefusedField(
            #""text": ["a", "b"], "lora_path": ["x"]"#,
            "lora_path must have one entry for each of 2 prompts, got 1."),
        RefusedField(
            #""text": "a", "sampling_params": [{}]"#, "sampling_params must be an object."),
    ])
    func refusals(_ field: RefusedField) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let answer = try await server.post("/generate", "{\(field.json)}")
        #expect(answer.status == 400)
        #expect(try answer.string("error.message") == field.words)
        #expect(server.engine.requests.isEmpty)
    }

    @Test func anUnknownAdapterIs404AsEverywhere() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let answer = try await server.post("/generate", #"{"text": "a", "lora_path": "nobody"}"#)
        #expect(answer.status == 404)
        #expect(try answer.string("error.message") == "The model `nobody` does not exist.")
    }

    /// SGLang: an adapter in `model` goes before `lora_path`.
    @Test func loraPathInOpenAIsRoutes() async throws {
        let server = try TestServer(.sayingWhichAdapter())
        try await server.addAdapter("lora0", "first weights")
        try await server.addAdapter("lora1", "other weights")
        for (members, expected) in [
            (#""lora_path": "lora0""#, "lora0"),
            (#""model": "base", "lora_path": "lora0""#, "lora0"),
            (#""model": "base:lora1", "lora_path": "lora0""#, "lora1"),
            (#""model": "base:lora1""#, "lora1"), (#""model": "base", "lora_path": null"#, "base"),
        ] {
            let answer = try await server.complete("{\"prompt\": \"a\", \(members)}")
            #expect(try answer.string("choices.0.text") == expected, "\(members)")
        }
    }

    @Test func loadingAndUnloading() async throws {
        let root = try AdapterRoot()
        let server = try TestServer(FakeEngine(saying: "x")) { $0.allowedRoots = [root.url] }
        for call in [
            DocumentedCall(
                "/load_lora_adapter",
                #"{"lora_name": "lora0", "lora_path": "\#(root.adapterPath)"}"#,
                #"{"success":true,"error_message":"","loaded_adapters":{"lora0":"lora0"}}"#),
            DocumentedCall(
                "/load_lora_adapter", #"{"lora_name": "lora0", "lora_path": "one"}"#, status: 400,
                #"{"success":false,"error_message":"LoRA with name lora0 already exists.","#
                    + #""loaded_adapters":{"lora0":"lora0"}}"#),
            DocumentedCall(
                "/load_lora_adapter",
                #"{"lora_name": "lora1", "lora_path": "one", "pinned": true}"#,
                #"{"success":true,"error_message":"","#
                    + #""loaded_adapters":{"lora0":"lora0","lora1":"lora1"}}"#),
            DocumentedCall(
                "/load_lora_adapter", #"{"lora_name": "x", "lora_path": "/etc"}"#, status: 400,
                #"{"success":false,"error_message":"Failed to load LoRA adapter x: nothing at "#
                    + #"/etc","loaded_adapters":{"lora0":"lora0","lora1":"lora1"}}"#),
            DocumentedCall(
                "/load_lora_adapter", #"{"lora_name": "base", "lora_path": "one"}"#, status: 400,
                #"{"success":false,"error_message":"Failed to load LoRA adapter base: the name "#
                    + #"'base' is the base model's","#
                    + #""loaded_adapters":{"lora0":"lora0","lora1":"lora1"}}"#),
            DocumentedCall(
                "/unload_lora_adapter", #"{"lora_name": "lora0"}"#,
                #"{"success":true,"error_message":"","loaded_adapters":{"lora1":"lora1"}}"#),
            DocumentedCall(
                "/unload_lora_adapter", #"{"lora_name": "lora0"}"#, status: 400,
                #"{"success":false,"error_message":"LoRA with name lora0 does not exist.","#
                    + #""loaded_adapters":{"lora1":"lora1"}}"#),
        ] { try await call.check(on: server) }
        #expect(try server.registry.record(name: "lora1").pinned)
    }

    @Test func aboutTheModel() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        for path in ["/get_model_info", "/model_info"] {
            #expect(
                try await server.get(path).body
                    == #"{"model_path":"base","tokenizer_path":"base","is_generation":true,"#
                    + #""preferred_sampling_params":null,"weight_version":"base","#
                    + #""has_image_understanding":false,"has_audio_understanding":false}"#)
        }
        let health = try await server.get("/health_generate")
        #expect(health.status == 200 && health.body.isEmpty)
        #expect(server.engine.requests.map(\.maximumTokenCount) == [1])
    }
}
