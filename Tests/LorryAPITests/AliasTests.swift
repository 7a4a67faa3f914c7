import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import Testing

@Suite struct AliasTests {
    private static let keys = """
        - {key: admin-of-blue, tenant: blue, roles: [inference, admin]}
        - {key: admin-of-all, tenant: default, roles: [inference, admin]}
        - {key: only-by-alias, tenant: blue, roles: [inference], adapters: [prod]}
        - {key: only-by-name, tenant: blue, roles: [inference], adapters: [alpha]}
        - {key: only-another, tenant: blue, roles: [inference], adapters: [beta]}
        - {key: limited-admin, tenant: blue, roles: [admin], adapters: [alpha, test]}
        """

    private func server() async throws -> TestServer {
        let server = try TestServer(FakeEngine(saying: "x"), keys: APIKeys(yaml: Self.keys))
        try await server.addAdapter("alpha", tenant: "blue")
        try await server.addAdapter("beta", "other weights", tenant: "blue")
        return server
    }

    private func put(
        _ server: TestServer, _ name: String, _ json: String, key: String = "admin-of-blue",
        headers: HTTPFields = [:]
    ) async throws -> TestServer.Answer {
        var headers = headers
        headers[.authorization] = "Bearer \(key)"
        headers[.contentType] = "application/json"
        return try await server.send(
            .put, "/admin/aliases/\(name)", headers: headers, chunks: [Array(json.utf8)])
    }

    @Test func isMadeMovedShownAndRemoved() async throws {
        let server = try await server()
        let made = try await put(server, "prod", #"{"adapter": "alpha"}"#)
        #expect(made.status == 201)
        #expect(made.headers[.eTag] == "\"alpha\"")
        #expect(try made.value("fixed") == .bool(false))
        let digest = try server.registry.record(name: "beta", tenant: "blue").version.digest
        let moved = try await put(
            server, "prod", #"{"adapter": "beta@\#(digest.prefix(8))"}"#,
            headers: [.ifMatch: "\"alpha\""])
        #expect(moved.status == 200)
        #expect(try moved.string("adapter") == "beta")
        #expect(try moved.string("version") == digest)
        #expect(try moved.value("fixed") == .bool(true))
        let stale = try await put(
            server, "prod", #"{"adapter": "alpha"}"#, headers: [.ifMatch: "\"alpha\""])
        #expect(stale.status == 412)
        #expect(
            try await server.get("/admin/aliases/prod", key: "admin-of-blue").body == moved.body)
        let record = try await server.get("/admin/adapters/beta", key: "admin-of-blue")
        #expect(try record.string("aliases.0") == "prod")
        let removed = try await server.send(
            .delete, "/admin/aliases/prod", headers: TestServer.headers("admin-of-blue"))
        #expect(removed.status == 200)
        #expect(try await server.get("/admin/aliases/prod", key: "admin-of-blue").status == 404)
    }

    /// What its list forbids is not told as if the alias were missing.
    @Test func aLimitedAdministratorIsToldWhy() async throws {
        let server = try await server()
        #expect(try await put(server, "prod", #"{"adapter": "beta"}"#).status == 201)
        #expect(try await put(server, "test", #"{"adapter": "beta"}"#).status == 201)
        for name in ["prod", "test", "nothing"] {
            let refused = try await put(
                server, name, #"{"adapter": "alpha"}"#, key: "limited-admin")
            #expect(refused.status == 404)
            #expect(
                try refused.string("error.message")
                    == "this API key may not change an alias '\(name)': its list of adapters must "
                    + "have both the alias and the adapter that it stands for")
        }
        let removed = try await server.send(
            .delete, "/admin/aliases/test", headers: TestServer.headers("admin-of-blue"))
        #expect(removed.status == 200)
        let free = try await put(
            server, "test", #"{"adapter": "alpha"}"#, key: "limited-admin")
        #expect(free.status == 201)
    }

    @Test func aRequestGetsWhatItStandsFor() async throws {
        let server = try await server()
        _ = try await put(server, "prod", #"{"adapter": "alpha"}"#)
        let version = try server.registry.record(name: "alpha", tenant: "blue").version.digest
        for (key, status) in [
            ("admin-of-blue", 200), ("only-by-alias", 200), ("only-by-name", 200),
            ("only-another", 404), ("admin-of-all", 404),
        ] {
            let answer = try await server.post(
                "/v1/completions", #"{"prompt": "a", "model": "prod"}"#, key: key)
            #expect(answer.status == status, "\(key)")
            guard status == 200 else { continue }
            #expect(try answer.string("model") == "prod")
            #expect(
                answer.headers[try #require(HTTPField.Name("x-lorry-adapter-version"))] == version)
        }
        let byName = try await server.post(
            "/v1/completions", #"{"prompt": "a", "model": "alpha"}"#, key: "only-by-alias")
        #expect(byName.status == 404, "the alias alone is allowed")
    }

    @Test func modelsListAliasesThatTheKeyMayUse() async throws {
        let server = try await server()
        _ = try await put(server, "prod", #"{"adapter": "alpha"}"#)
        for (key, expected) in [
            ("admin-of-blue", ["base", "alpha", "beta", "prod"]),
            ("only-by-alias", ["base", "prod"]), ("only-by-name", ["base", "alpha", "prod"]),
            ("only-another", ["base", "beta"]), ("admin-of-all", ["base"]),
        ] {
            let models = try await server.get("/v1/models", key: key)
            let ids = try models.value("data")?.arrayValue?.compactMap {
                $0.objectValue?["id"]?.stringValue
            }
            #expect(ids == expected, "\(key)")
        }
        let card = try await server.get("/v1/models/prod", key: "only-by-alias")
        #expect(try card.string("id") == "prod")
        #expect(try card.string("root") == "alpha")
    }

    @Test func listsArePagedAndFiltered() async throws {
        let server = try await server()
        for (alias, adapter) in [("a1", "alpha"), ("a2", "beta"), ("b1", "alpha")] {
            _ = try await put(server, alias, #"{"adapter": "\#(adapter)"}"#)
        }
        func names(_ query: String, key: String = "admin-of-blue") async throws -> [String?] {
            let page = try await server.get("/admin/aliases\(query)", key: key)
            return try page.value("aliases")?.arrayValue?.map {
                $0.objectValue?["name"]?.stringValue
            } ?? []
        }
        #expect(try await names("") == ["a1", "a2", "b1"])
        #expect(try await names("?prefix=a") == ["a1", "a2"])
        #expect(try await names("?adapter=alpha") == ["a1", "b1"])
        #expect(try await names("", key: "admin-of-all") == ["a1", "a2", "b1"])
        let page = try await server.get("/admin/aliases?limit=2", key: "admin-of-blue")
        #expect(try page.integer("remaining") == 1)
        let next = try #require(try page.string("next"))
        #expect(try await names("?after=\(next)") == ["b1"])
    }

    @Test func badRequestsNameTheField() async throws {
        let server = try await server()
        for (name, json, status, says) in [
            ("prod", "{}", 400, "adapter"), ("prod", #"{"adapter": 1}"#, 400, "adapter"),
            ("prod", #"{"adapter": "gamma"}"#, 404, "'gamma'"),
            ("prod", #"{"adapter": "alpha@xyz"}"#, 400, "'xyz'"),
            ("base", #"{"adapter": "alpha"}"#, 409, "'base'"),
            ("beta", #"{"adapter": "alpha"}"#, 409, "'beta'"),
            (".x", #"{"adapter": "alpha"}"#, 400, "'.x'"),
        ] {
            let answer = try await put(server, name, json)
            #expect(answer.status == status, "\(name) \(json)")
            #expect(try answer.string("error.message")?.contains(says) == true, "\(answer.body)")
        }
    }

    @Test func uploadsUnderWayAreListed() async throws {
        let server = try await server()
        let upload = try server.registry.makeUpload(
            for: AdapterKey(name: "gamma", tenant: "blue"), byteCount: 100)
        try await upload.beginFile("adapter_model.safetensors")
        try await upload.writeFile(Array("weights".utf8))
        let listed = try await server.get("/admin/uploads", key: "admin-of-blue")
        #expect(try listed.string("uploads.0.name") == "gamma")
        #expect(try listed.integer("uploads.0.receivedByteCount") == 7)
        #expect(try listed.integer("uploads.0.byteCount") == 100)
        #expect(try listed.string("uploads.0.phase") == "receiving")
        let foreign = try await server.get("/admin/uploads", key: "admin-of-all")
        #expect(try foreign.value("uploads")?.arrayValue?.count == 1, "sees every tenant's")
        await upload.discard()
        let after = try await server.get("/admin/uploads", key: "admin-of-blue")
        #expect(try after.value("uploads")?.arrayValue?.isEmpty == true)
    }
}
