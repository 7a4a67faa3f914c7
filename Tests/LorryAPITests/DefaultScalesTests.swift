import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import Testing

/// `GET` and `POST /lora-adapters`: what requests run on that name no model.
@Suite struct DefaultScalesTests {
    private func server(keys: APIKeys? = nil) async throws -> TestServer {
        let server = try TestServer(.sayingWhichAdapter(), keys: keys) { services in
            services.combinations = AdapterCombinations(
                describeSum: { adapters in
                    guard !adapters.contains(where: { $0.lease.record.name == "odd" }) else {
                        throw AdapterError(.unsupported, "odd: cannot be part of a sum")
                    }
                    return AdapterDescription(
                        method: "composition", rank: 8, targets: [], byteCount: 1,
                        parameterCount: 1)
                },
                loadSum: { _ in throw AdapterError(.unreadable, "never loaded here") },
                merge: { _, _ in throw AdapterError(.unsupported, "merges nothing") })
        }
        try await server.addAdapter("alpha", "first weights")
        try await server.addAdapter("beta", "other weights")
        return server
    }

    private func text(
        _ server: TestServer, _ member: String = "", key: String? = nil
    ) async throws -> String? {
        let answer = try await server.post(
            "/completion", "{\"prompt\": \"a\"\(member)}", key: key)
        return try answer.string("content") ?? answer.string("error.message")
    }

    @Test func scalesApplyToRequestsThatNameNothing() async throws {
        let server = try await server()
        for call in [
            DocumentedCall(
                "/lora-adapters", #"[{"id": 0, "scale": 0.2},{"id": 1, "scale": 0.8}]"#,
                #"{"success":true}"#)
        ] { try await call.check(on: server) }
        #expect(try await text(server).map(Set.init) == Set("alpha+beta"))
        let list = try await server.get("/lora-adapters")
        #expect(
            list.body
                == #"[{"id":0,"path":"alpha","scale":0.2},{"id":1,"path":"beta","scale":0.8}]"#)
        // Whoever is not listed has scale 0.
        _ = try await server.post("/lora-adapters", #"[{"id": 1, "scale": 1.0}]"#)
        #expect(try await text(server) == "beta")
        let answer = try await server.complete(#"{"prompt": "a", "max_tokens": 9}"#)
        #expect(try answer.string("choices.0.text") == "beta")
        let chat = try await server.chat(#"{"messages": [{"role": "user", "content": "a"}]}"#)
        #expect(try chat.string("model") == "beta")
        for (member, expected) in [
            (#", "model": "base""#, "base"), (#", "model": "alpha""#, "alpha"),
            (#", "adapter_id": "alpha""#, "alpha"), (#", "lora": []"#, "base"),
            (#", "lora": [{"id": 0, "scale": 1}]"#, "alpha"), (#", "lora_path": "alpha""#, "alpha"),
            (#", "model": """#, "beta"),
        ] {
            #expect(try await text(server, member) == expected, "\(member)")
        }
        _ = try await server.post("/lora-adapters", "[]")
        #expect(try await text(server) == "base")
    }

    @Test func otherPeersRoutesWithoutANameMeanTheBaseModel() async throws {
        let server = try await server()
        _ = try await server.post("/lora-adapters", #"[{"id": 1, "scale": 1}]"#)
        let sgLang = try await server.post("/generate", #"{"text": "a"}"#)
        #expect(try sgLang.string("text") == "base")
        let loRAX = try await server.post("/generate", #"{"inputs": "a"}"#)
        #expect(try loRAX.string("generated_text") == "base")
    }

    @Test func adaptersThatComeAndGoDoNotChangeWhatWasMeant() async throws {
        let server = try await server()
        _ = try await server.post("/lora-adapters", #"[{"id": 0, "scale": 1}]"#)
        try await server.addAdapter("aaa", "more weights")
        #expect(try await text(server) == "alpha")
        #expect(
            try await server.get("/lora-adapters").body
                == #"[{"id":0,"path":"aaa","scale":0.0},{"id":1,"path":"alpha","scale":1.0},"#
                + #"{"id":2,"path":"beta","scale":0.0}]"#)
        // The client read the list before `aaa` came.
        let stale = try await server.post(
            "/lora-adapters", #"[{"id": 0, "path": "alpha", "scale": 0.5}]"#)
        #expect(stale.status == 409)
        #expect(try stale.string("error.message")?.contains("'aaa' now, not 'alpha'") == true)
        for named in [
            #"[{"path": "beta", "scale": 1}]"#, #"[{"name": "beta", "scale": 1}]"#,
            #"[{"id": 2, "path": "beta", "scale": 1}]"#,
        ] {
            _ = try await server.post("/lora-adapters", "[]")
            #expect(try await server.post("/lora-adapters", named).body == #"{"success":true}"#)
            #expect(try await text(server) == "beta")
        }
        try await server.registry.remove(name: "beta", actor: "test")
        #expect(
            try await text(server)
                == "An adapter that POST /lora-adapters has set for requests without 'model' does "
                + "not exist.")
        #expect(try await text(server, #", "model": "base""#) == "base")
    }

    @Test func anEntityTagGuardsPositions() async throws {
        let server = try await server()
        let tag = try #require(try await server.get("/lora-adapters").headers[.eTag])
        let set = { (tag: String) in
            try await server.send(
                .post, "/lora-adapters",
                headers: [.contentType: "application/json", .ifMatch: tag],
                chunks: [Array(#"[{"id": 0, "scale": 1}]"#.utf8)]
            ).status
        }
        #expect(try await set(tag) == 200)
        try await server.addAdapter("aaa", "more weights")
        #expect(try await set(tag) == 412)
        #expect(try await text(server) == "alpha")
    }

    @Test(arguments: [
        (#"{"id": 0}"#, 400), (#"[1]"#, 400), (#"[{"id": 7, "scale": 1}]"#, 404),
        (#"[{"id": -1, "scale": 1}]"#, 404), (#"[{"scale": 1}]"#, 400),
        (#"[{"id": 0, "scale": "x"}]"#, 400), (#"[{"name": "nobody"}]"#, 404),
        (#"[{"name": "alpha"}, {"name": "odd"}]"#, 400),
    ])
    func whatCannotBeIsRefusedAndChangesNothing(_ body: String, _ status: Int) async throws {
        let server = try await server()
        try await server.addAdapter("odd", "odd weights")
        _ = try await server.post("/lora-adapters", #"[{"name": "beta", "scale": 1}]"#)
        #expect(try await server.post("/lora-adapters", body).status == status)
        #expect(try await text(server) == "beta")
    }

    @Test func eachTenantHasItsOwnAndEachChangeIsAudited() async throws {
        let keys = """
            - {key: admin-of-blue, tenant: blue, roles: [admin, inference]}
            - {key: key-of-blue, tenant: blue, roles: [inference], adapters: [alpha]}
            - {key: key-of-red, tenant: red, roles: [inference]}
            """
        let server = try await server(keys: APIKeys(yaml: keys))
        let body = #"[{"name": "beta", "scale": 1}, {"name": "alpha", "scale": 0}]"#
        #expect(
            try await server.post("/lora-adapters", body, key: "key-of-blue").status == 403)
        #expect(
            try await server.post("/lora-adapters", body, key: "admin-of-blue").status == 200)
        #expect(try await text(server, key: "admin-of-blue") == "beta")
        #expect(try await text(server, key: "key-of-red") == "base")
        // A key that may not use it is not told what it is.
        let refused = try await server.post(
            "/completion", #"{"prompt": "a"}"#, key: "key-of-blue")
        #expect(refused.status == 404)
        #expect(!refused.body.contains("beta"))
        let events = try await server.registry.events(EventQuery())
        let event = try #require(events.last)
        #expect(event.action == .scales)
        #expect(event.tenant == "blue")
        #expect(event.detail == "beta=1.0")
        #expect(events.count { $0.action == .scales } == 1)
    }
}
