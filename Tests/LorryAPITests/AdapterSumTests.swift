import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import Synchronization
import Testing

@Suite struct AdapterSumTests {
    /// A server on which sums take 100 bytes for each adapter, and `odd` is no part of any.
    private func server(keys: APIKeys? = nil) throws -> TestServer {
        try TestServer(FakeEngine(saying: "x"), keys: keys) { services in
            services.combinations = AdapterCombinations(
                describeSum: { adapters in
                    guard !adapters.contains(where: { $0.lease.record.name == "odd" }) else {
                        throw AdapterError(.unsupported, "odd: cannot be part of a sum")
                    }
                    return AdapterDescription(
                        method: "composition", rank: 8, targets: [],
                        byteCount: 100 * adapters.count, parameterCount: 1)
                },
                loadSum: { adapters in
                    throw AdapterError(
                        .invalid,
                        adapters.map { "\($0.lease.record.name)*\($0.scale)" }.joined(
                            separator: " "))
                },
                merge: { _, _ in throw AdapterError(.unsupported, "merges nothing") })
        }
    }

    private func reference(_ server: TestServer, _ lora: String) async throws -> AdapterReference? {
        let answer = try await server.complete("{\"prompt\": \"a\", \"lora\": \(lora)}")
        #expect(answer.status == 200, "\(lora): \(answer.body)")
        let request = try #require(server.engine.requests.last)
        let header = try #require(HTTPField.Name("x-lorry-adapter-version"))
        #expect(answer.headers[header] == request.adapter?.id.digest ?? "base")
        return request.adapter
    }

    private func parts(_ reference: AdapterReference?) throws -> String {
        let reference = try #require(reference)
        let error = #expect(throws: AdapterError.self) { try reference.load() }
        return try #require(error).message
    }

    @Test func oneSumHasOneIdentityHoweverItIsWritten() async throws {
        let server = try server()
        try await server.addAdapter("alpha", "first weights")
        try await server.addAdapter("beta", "other weights")
        let sum = try #require(
            try await reference(
                server, #"[{"name": "alpha", "scale": 0.5}, {"name": "beta", "scale": 2}]"#))
        #expect(sum.byteCount == 200)
        #expect(sum.id.digest.count == 64)
        #expect(sum.name == "alpha+beta" || sum.name == "beta+alpha")
        #expect(
            Set(try parts(sum).split(separator: " ")) == ["alpha*0.5", "beta*2.0"])
        for same in [
            #"[{"id": 1, "scale": 2}, {"id": 0, "scale": 0.5}]"#,
            #"[{"id": "beta", "scale": 2}, {"name": "alpha", "scale": 0.25}, {"id": 0, "scale": 0.25}]"#,
            #"[{"name": "beta"}, {"name": "alpha", "scale": 0.5}, {"name": "beta", "scale": 1}]"#,
        ] {
            let other = try #require(try await reference(server, same))
            #expect(other.id == sum.id && other.name == sum.name, "\(same)")
        }
        let other = try await reference(
            server, #"[{"name": "alpha", "scale": 2}, {"name": "beta", "scale": 0.5}]"#)
        #expect(other?.id != sum.id)
        #expect(server.registry.leaseCount > 0)
        server.engine.state.withLock { $0.requests = [] }
    }

    @Test func whatIsNoSumIsNotOne() async throws {
        let server = try server()
        let alpha = try await server.addAdapter("alpha", "first weights").version.digest
        try await server.addAdapter("beta", "other weights")
        for plain in [
            #"[{"name": "alpha"}]"#, #"[{"name": "alpha", "scale": 1}, {"id": 1, "scale": 0}]"#,
            #"[{"name": "alpha", "scale": 0.75}, {"id": 0, "scale": 0.25}]"#,
        ] {
            #expect(try await reference(server, plain)?.id.digest == alpha, "\(plain)")
        }
        for nothing in [
            "[]", #"[{"name": "alpha", "scale": 0}]"#,
            #"[{"name": "alpha"}, {"name": "alpha", "scale": -1}]"#,
        ] {
            #expect(try await reference(server, nothing) == nil, "\(nothing)")
        }
        let scaled = try await reference(server, #"[{"name": "alpha", "scale": 0.5}]"#)
        #expect(scaled?.name == "alpha")
        #expect(scaled?.id.digest != alpha)
        #expect(try parts(scaled) == "alpha*0.5")
    }

    @Test func everyAdapterOfASumHasToExistAndBeAllowed() async throws {
        let keys = "- {key: key-of-blue, tenant: blue, roles: [inference], adapters: [alpha]}"
        let server = try server(keys: APIKeys(yaml: keys))
        try await server.addAdapter("alpha", "first weights")
        try await server.addAdapter("beta", "other weights")
        for (lora, name) in [
            (#"[{"name": "alpha"}, {"name": "nobody", "scale": 0}]"#, "nobody"),
            (#"[{"name": "alpha"}, {"name": "beta"}]"#, "beta"),
            (#"[{"name": "alpha"}, {"id": 1}]"#, "lora[1].id = 1"),
        ] {
            let answer = try await server.post(
                "/v1/completions", "{\"prompt\": \"a\", \"lora\": \(lora)}", key: "key-of-blue")
            #expect(answer.status == 404)
            #expect(
                try answer.string("error.message") == "The model `\(name)` does not exist.")
        }
        #expect(server.registry.leaseCount == 0)
    }

    @Test func whatCannotBeSummedIs400() async throws {
        let server = try server()
        try await server.addAdapter("alpha", "first weights")
        try await server.addAdapter("odd", "other weights")
        let answer = try await server.complete(
            #"{"prompt": "a", "lora": [{"name": "alpha"}, {"name": "odd"}]}"#)
        #expect(answer.status == 400)
        #expect(try answer.string("error.param") == "lora")
        #expect(try answer.string("error.message") == "lora: odd: cannot be part of a sum")
        #expect(try await reference(server, #"[{"name": "odd"}]"#)?.name == "odd")
    }

    @Test func aSumHoldsTheVersionsThatItStartedWith() async throws {
        let server = try server()
        try await server.addAdapter("alpha", "first weights")
        try await server.addAdapter("beta", "other weights")
        let sum = try await reference(
            server, #"[{"name": "alpha", "scale": 0.5}, {"name": "beta", "scale": 2}]"#)
        server.engine.state.withLock { $0.requests = [] }
        try await server.addAdapter("alpha", "newer weights")
        #expect(server.registry.leaseCount == 2)
        let newer = try await reference(
            server, #"[{"name": "alpha", "scale": 0.5}, {"name": "beta", "scale": 2}]"#)
        #expect(newer?.id != sum?.id)
    }
}
