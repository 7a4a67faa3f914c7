import Foundation
import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import Synchronization
import Testing

/// vLLM's routes, by the calls of its documents and of its own tests.
@Suite struct VLLMTests {
    private func server(_ root: AdapterRoot) throws -> TestServer {
        try TestServer(FakeEngine(saying: "x")) { $0.allowedRoots = [root.url] }
    }

    @Test func loadingAndUnloading() async throws {
        let root = try AdapterRoot()
        let server = try server(root)
        let load = #"{"lora_name": "sql", "lora_path": "\#(root.adapterPath)"}"#
        for call in [
            DocumentedCall(
                "/v1/load_lora_adapter", load, "Success: LoRA adapter 'sql' added successfully."),
            DocumentedCall(
                "/v1/load_lora_adapter", load, status: 400,
                #"{"error":{"message":"The lora adapter 'sql' has already been loaded. If you "#
                    + #"want to load the adapter in place, set 'load_inplace' to True.","#
                    + #""type":"InvalidUserInput","param":null,"code":400}}"#),
            DocumentedCall(
                "/v1/load_lora_adapter",
                #"{"lora_name": "sql", "lora_path": "one", "load_inplace": true}"#,
                "Success: LoRA adapter 'sql' added successfully."),
            DocumentedCall(
                "/v1/unload_lora_adapter", #"{"lora_name": "sql", "lora_int_id": 1}"#,
                "Success: LoRA adapter 'sql' removed successfully."),
            DocumentedCall(
                "/v1/unload_lora_adapter", #"{"lora_name": "sql"}"#, status: 404,
                #"{"error":{"message":"The lora adapter 'sql' cannot be found.","#
                    + #""type":"NotFoundError","param":null,"code":404}}"#),
        ] { try await call.check(on: server) }
    }

    @Test(arguments: [
        DocumentedCall(
            "/v1/load_lora_adapter", #"{"lora_name": "x"}"#, status: 400,
            "Both 'lora_name' and 'lora_path' must be provided."),
        DocumentedCall(
            "/v1/load_lora_adapter", #"{"lora_name": "", "lora_path": ""}"#, status: 400,
            "Both 'lora_name' and 'lora_path' must be provided."),
        DocumentedCall(
            "/v1/load_lora_adapter", #"{"lora_name": "x", "lora_path": "/etc"}"#, status: 404,
            "Loading lora x failed: No adapter found for /etc"),
        DocumentedCall(
            "/v1/load_lora_adapter", #"{"lora_name": 3, "lora_path": "one"}"#, status: 400,
            "lora_name must be a string."),
        DocumentedCall(
            "/v1/load_lora_adapter",
            #"{"lora_name": "x", "lora_path": "one", "is_3d_lora_weight": true}"#, status: 400,
            "is_3d_lora_weight is not supported."),
        DocumentedCall(
            "/v1/load_lora_adapter", #"{"lora_name": "base", "lora_path": "one"}"#, status: 400,
            "the name 'base' is the base model's"),
        DocumentedCall(
            "/v1/unload_lora_adapter", #"{"lora_name": ""}"#, status: 400,
            "'lora_name' needs to be provided to unload a LoRA adapter."),
        DocumentedCall(
            "/v1/unload_lora_adapter", #"{"lora_name": "base"}"#, status: 404,
            "The lora adapter 'base' cannot be found."),
    ])
    func refusals(_ call: DocumentedCall) async throws {
        let root = try AdapterRoot()
        let server = try server(root)
        let answer = try await server.post(call.path, call.body)
        #expect(answer.status == call.status)
        #expect(try answer.string("error.message") == call.answer)
        #expect(try answer.integer("error.code") == call.status)
        #expect(server.registry.list().adapters.isEmpty)
    }

    @Test func oneOfTwoLoadsAtOnceSucceeds() async throws {
        let root = try AdapterRoot()
        let server = try server(root)
        let load = #"{"lora_name": "sql", "lora_path": "one"}"#
        let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<4 {
                group.addTask { try await server.post("/v1/load_lora_adapter", load).status }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(statuses.sorted() == [200, 400, 400, 400])
    }

    @Test func theModelListHasItsShape() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        try await server.addAdapter("sql")
        let answer = try await server.get("/v1/models")
        let card = try #require(try answer.value("data.1")?.objectValue)
        #expect(
            card.members.map(\.key) == [
                "id", "object", "created", "owned_by", "root", "parent", "max_model_len", "version",
                "permission",
            ])
        #expect(card["parent"] == .string("base"))
        #expect(try answer.value("data.0.parent") == .null)
        #expect(try answer.string("data.0.permission.0.object") == "model_permission")
    }

    @Test func theServersLoad() async throws {
        let engine = FakeEngine(saying: "x")
        engine.state.withLock {
            $0.statistics.runningCount = 3
            $0.statistics.waitingCount = 4
        }
        let answer = try await TestServer(engine).get("/load")
        #expect(answer.body == #"{"server_load":7}"#)
    }
}
