import Foundation
import HTTPTypes
import Hummingbird
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import NIOCore
import Synchronization
import Testing

/// What a tenant may keep, by every way in which an adapter comes in.
@Suite struct AllowanceTests {
    private func server(_ limits: String) throws -> TestServer {
        let server = try TestServer(
            FakeEngine(saying: "x"),
            keys: APIKeys(
                yaml: """
                    keys:
                      - {key: blue-admin, id: admin, tenant: blue, roles: [admin]}
                      - {key: red-admin-1, id: admin2, tenant: red, roles: [admin]}
                    tenants:
                      blue: {\(limits)}
                    """)
        ) { $0.allowedRoots = [FileManager.default.temporaryDirectory] }
        let folder = server.folder.appendingPathComponent("one")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for (name, content) in AdminTests.files("by path") {
            try content.write(
                to: folder.appendingPathComponent(name), atomically: true, encoding: .utf8)
        }
        return server
    }

    private func put(
        _ server: TestServer, _ name: String, _ weights: String, key: String = "blue-admin"
    ) async throws -> TestServer.Answer {
        var headers = TestServer.headers(key)
        headers[.contentType] = "application/x-tar"
        return try await server.send(
            .put, "/admin/adapters/\(name)", headers: headers,
            chunks: [AdminTests.tar(AdminTests.files(weights))])
    }

    @Test func namesByEveryWay() async throws {
        let server = try server("max_adapters: 1")
        #expect(try await put(server, "alpha", "1").status == 201)
        let over = try await put(server, "beta", "2")
        #expect(over.status == 403)
        #expect(
            try #require(try over.string("error.message"))
                .contains("tenant 'blue' may have 1 adapters and has 1"))
        let path = server.folder.appendingPathComponent("one").path
        var headers = TestServer.headers("blue-admin")
        headers[.contentType] = "application/json"
        let byPath = try await server.send(
            .put, "/admin/adapters/beta", headers: headers,
            chunks: [Array(#"{"path": "\#(path)"}"#.utf8)])
        #expect(byPath.status == 403)
        let load = { (name: String, replaces: Bool) in
            try await server.post(
                "/v1/load_lora_adapter",
                #"{"lora_name": "\#(name)", "lora_path": "\#(path)", "load_inplace": \#(replaces)}"#,
                key: "blue-admin")
        }
        #expect(try await load("beta", false).status == 403)
        #expect(try await load("beta", true).status == 403)
        let merge = try await server.post(
            "/admin/adapters/beta/merge", #"{"adapters": [{"name": "alpha"}]}"#, key: "blue-admin")
        #expect(merge.status == 403)
        // A name that is there may change, and go back.
        #expect(try await load("alpha", true).status == 200)
        #expect(
            try await server.send(
                .post, "/admin/adapters/alpha/rollback", headers: TestServer.headers("blue-admin")
            ).status == 200)
        #expect(try await put(server, "beta", "2", key: "red-admin-1").status == 201)
        #expect(server.registry.openUploadCount == 0)
    }

    @Test func bytes() async throws {
        // adapter_config.json has 2 bytes.
        let server = try server("max_adapter_bytes: 20")
        #expect(try await put(server, "alpha", "12345678").status == 201)
        #expect(try await put(server, "beta", "12345678").status == 201)
        #expect(try await put(server, "beta", "1234567").status == 201)
        let over = try await put(server, "gamma", "1")
        #expect(over.status == 403)
        let message = try #require(try over.string("error.message"))
        #expect(message.contains("20 bytes") && message.contains("stores 19"), "\(message)")
        #expect(message.contains("make it 22"))
        // More than the tenant may have at all is not even stored meanwhile.
        #expect(try await put(server, "gamma", String(repeating: "1", count: 21)).status == 413)
        #expect(server.registry.count == 2)
    }

    @Test func aNameTooManyIsRefusedBeforeTheBodyIsRead() async throws {
        let server = try server("max_adapters: 0")
        let wasRead = Mutex(false)
        var headers = TestServer.headers("blue-admin")
        headers[.contentType] = "application/x-tar"
        let body = AsyncStream<ByteBuffer> {
            wasRead.withLock { $0 = true }
            return nil
        }
        let response = try await server.response(
            .put, "/admin/adapters/alpha", headers: headers, body: .init(asyncSequence: body))
        #expect(response.status.code == 403)
        #expect(!wasRead.withLock { $0 })
    }

    @Test func pinsByEveryWay() async throws {
        let server = try server("max_pinned: 1")
        for name in ["alpha", "beta"] {
            #expect(try await put(server, name, name).status == 201)
        }
        let change = { (name: String, verb: String) in
            try await server.post("/admin/adapters/\(name)/\(verb)", "", key: "blue-admin")
        }
        #expect(try await change("alpha", "pin").status == 200)
        #expect(try await change("alpha", "pin").status == 200)
        let over = try await change("beta", "pin")
        #expect(over.status == 403)
        #expect(
            try over.string("error.message")
                == "tenant 'blue' may pin 1 adapters and has pinned 1: 'beta' would be one too many"
        )
        // Nothing is loaded that could not be pinned then.
        let path = server.folder.appendingPathComponent("one").path
        let load = { (name: String) in
            try await server.post(
                "/load_lora_adapter",
                #"{"lora_name": "\#(name)", "lora_path": "\#(path)", "pinned": true}"#,
                key: "blue-admin")
        }
        let refused = try await load("gamma")
        #expect(refused.status == 400)
        #expect(refused.body.contains("may pin 1 adapters"))
        #expect(server.registry.list().adapters.count == 2)
        // Another version of a pinned name is no further pin, and a removed one leaves room.
        #expect(try await put(server, "alpha", "another").status == 201)
        let removed = try await server.send(
            .delete, "/admin/adapters/alpha", headers: TestServer.headers("blue-admin"))
        #expect(removed.status == 200)
        #expect(try await change("beta", "pin").status == 200)
        #expect(try await change("beta", "unpin").status == 200)
        #expect(try await load("gamma").status == 200)
        #expect(try server.registry.record(name: "gamma", tenant: "blue").pinned)
    }

    @Test func actorsAreKeys() async throws {
        let server = try server("max_adapters: 5")
        #expect(try await put(server, "alpha", "1").status == 201)
        let path = server.folder.appendingPathComponent("one").path
        _ = try await server.post(
            "/v1/load_lora_adapter", #"{"lora_name": "beta", "lora_path": "\#(path)"}"#,
            key: "blue-admin")
        _ = try await server.post(
            "/v1/unload_lora_adapter", #"{"lora_name": "beta"}"#, key: "blue-admin")
        _ = try await server.post("/admin/adapters/alpha/pin", "", key: "blue-admin")
        let events = try await server.get("/admin/events", key: "blue-admin")
        let actors = try #require(try events.value("events")?.arrayValue).map {
            $0.objectValue?["actor"]?.stringValue
        }
        #expect(actors == Array(repeating: "blue/admin", count: 4))
    }
}
