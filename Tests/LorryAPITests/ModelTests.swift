import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import Synchronization
import Testing

@Suite struct ModelTests {
    @Test func listsTheBaseModelAndEveryAdapter() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        try await server.addAdapter("zeta")
        try await server.addAdapter("alpha")
        try await server.addAdapter("hidden", tenant: "other")
        let answer = try await server.get("/v1/models")
        let data = try #require(try answer.value("data")?.arrayValue?.map { $0.objectValue })
        #expect(data.map { $0?["id"]?.stringValue } == ["base", "alpha", "zeta"])
        #expect(data.map { $0?["parent"]?.stringValue } == [nil, "base", "base"])
        #expect(data.allSatisfy { $0?["max_model_len"]?.integerValue == 64 })
        #expect(try answer.integer("data.0.created") == 1000)
    }

    @Test func oneModel() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        try await server.addAdapter("alpha")
        #expect(try await server.get("/v1/models/base").string("id") == "base")
        #expect(try await server.get("/v1/models/alpha").string("parent") == "base")
        #expect(try await server.get("/v1/models/base:alpha").string("id") == "alpha")
        let missing = try await server.get("/v1/models/none/of%20it")
        #expect(missing.status == 404)
        #expect(
            try missing.string("error.message") == "The model `none/of it` does not exist.")
    }

    @Test func oneVersion() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let digest = try await server.addAdapter("alpha").version.digest
        let path = "/v1/models/alpha@\(digest.prefix(8))"
        #expect(try await server.get(path).string("version") == digest)
        #expect(try await server.get("/v1/models/alpha@00000000").status == 404)
    }

    @Test func anOwnAdapterHidesASharedOneAlsoWhileItIsDisabled() async throws {
        let keys = "- {key: key-of-blue, tenant: blue, roles: [inference, admin]}"
        let server = try TestServer(FakeEngine(saying: "x"), keys: APIKeys(yaml: keys))
        try await server.addAdapter("alpha")
        try await server.addAdapter("alpha", tenant: "blue")
        _ = try await server.post("/admin/adapters/alpha/disable", "{}", key: "key-of-blue")
        let models = try await server.get("/v1/models", key: "key-of-blue")
        #expect(try models.value("data")?.arrayValue?.count == 1)
        let answer = try await server.post(
            "/v1/completions", #"{"prompt": "a", "model": "alpha"}"#, key: "key-of-blue")
        #expect(answer.status == 403)
    }

    @Test func waysToNameAnAdapter() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let record = try await server.addAdapter("alpha")
        let digest = record.version.digest
        for json in [
            #""model": "alpha""#, #""model": "alpha@\#(digest)""#,
            #""model": "alpha@\#(digest.prefix(12))""#, #""model": "base:alpha""#,
            #""adapter_id": "alpha", "adapter_source": "hub""#,
            #""model": "base", "lora": [{"id": 0, "scale": 1.0}]"#,
            #""lora": [{"name": "alpha"}]"#, #""lora": [{"id": "alpha"}]"#,
        ] {
            let answer = try await server.complete("{\"prompt\": \"a\", \(json)}")
            #expect(answer.status == 200, "\(json): \(answer.body)")
            let request = try #require(server.engine.requests.last)
            #expect(request.adapter?.id.digest == digest)
            #expect(request.adapter?.name == "alpha")
            #expect(
                answer.headers[try #require(HTTPField.Name("x-lorry-adapter-version"))] == digest)
        }
        for json in [#""model": "base""#, #""model": null"#, #""user": "u""#, #""lora": []"#] {
            let answer = try await server.complete("{\"prompt\": \"a\", \(json)}")
            #expect(answer.status == 200, "\(json): \(answer.body)")
            #expect(server.engine.requests.last?.adapter == nil)
        }
    }

    @Test(arguments: [
        #""model": "nobody""#, #""model": "base:nobody""#, #""model": "alpha@00000000""#,
        #""model": "alpha@xyz""#, #""model": "../../etc""#, #""adapter_id": "nobody""#,
        #""lora": [{"id": 7}]"#, #""lora": [{"id": -1}]"#, #""adapter_id": "base""#,
    ])
    func unknownModelIs404(_ json: String) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        try await server.addAdapter("alpha")
        let answer = try await server.complete("{\"prompt\": \"a\", \(json)}")
        #expect(answer.status == 404, "\(answer.body)")
        #expect(try answer.string("error.type") == "NotFoundError")
        #expect(try #require(try answer.string("error.message")).hasSuffix("does not exist."))
    }

    @Test func aRequestKeepsItsVersion() async throws {
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: [72], hangs: true) })
        try await server.addAdapter("alpha")
        let task = Task {
            try await server.complete(#"{"prompt": "a", "model": "alpha", "max_tokens": 9}"#)
        }
        while server.engine.requests.isEmpty { await Task.yield() }
        #expect(server.registry.leaseCount == 1)
        try await server.registry.remove(name: "alpha", actor: "test")
        #expect(server.registry.leaseCount == 1)
        task.cancel()
        _ = try? await task.value
        server.engine.state.withLock { $0.requests = [] }
        #expect(server.registry.leaseCount == 0)
    }

    @Test func anAdaptersOwnTemplateIsUsed() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        try await server.addAdapter("own", files: ["chat_template.jinja": "own template"])
        _ = try await server.chat(
            #"{"model": "own", "messages": [{"role": "user", "content": "hi"}]}"#)
        #expect(
            server.engine.requests.last?.promptTokens == TestTokenizer.tokens("own template"))
    }

    @Test func tokenizing() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let plain = try await server.post("/tokenize", #"{"prompt": "ab"}"#)
        #expect(
            plain.body == #"{"count":2,"max_model_len":64,"tokens":[97,98],"token_strs":null}"#)
        let named = try await server.post(
            "/tokenize", #"{"model": "base", "prompt": "a b", "return_token_strs": true}"#)
        #expect(named.body.contains(#""token_strs":["a","Ġ","b"]"#))
        let chat = try await server.post(
            "/tokenize",
            #"{"messages": [{"role": "user", "content": "x"}], "add_generation_prompt": false}"#)
        #expect(
            try chat.value("tokens")?.arrayValue?.count == "<user>x\n".utf8.count + 1,
            "\(chat.body)")
        #expect(try await server.post("/tokenize", "{}").status == 400)
        let text = try await server.post("/detokenize", #"{"tokens": [257, 72, 105]}"#)
        #expect(
            text.body == #"{"prompt":"<begin>Hi","content":"<begin>Hi","text":"<begin>Hi"}"#)
        let bad = try await server.post("/detokenize", #"{"tokens": [999]}"#)
        #expect(bad.status == 400)
        #expect(try bad.string("error.param") == "tokens")
    }
}
