import Foundation
import Hummingbird
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import Testing

@Suite struct UsageRouteTests {
    private static let yaml = """
        - {key: blue-user, id: user, tenant: blue, roles: [inference]}
        - {key: blue-admin, id: admin, tenant: blue, roles: [admin]}
        - {key: blue-narrow, id: narrow, tenant: blue, roles: [admin], adapters: [alpha]}
        - {key: red-user-1, id: red, tenant: red, roles: [inference]}
        - {key: operator-1, id: operator, tenant: default, roles: [admin]}
        """

    private func server(_ clock: TestClock) async throws -> TestServer {
        let server = try TestServer(
            FakeEngine { request in
                request.promptTokens == [33]
                    ? .init(failure: .shuttingDown)
                    : .init(tokens: TestTokenizer.tokens("xyz"), cachedTokenCount: 1)
            }, keys: APIKeys(yaml: Self.yaml), clock: clock)
        try await server.addAdapter("alpha")
        try await server.addAdapter("beta")
        return server
    }

    private func ask(_ server: TestServer, _ model: String, _ key: String) async throws {
        let answer = try await server.post(
            "/v1/completions", #"{"prompt": "ab", "model": "\#(model)"}"#, key: key)
        #expect(answer.status == 200)
    }

    @Test func countsWhatWasUsed() async throws {
        let clock = try TestClock(at: "2026-11-21T23:59:59Z")
        let server = try await server(clock)
        try await ask(server, "alpha", "blue-user")
        try await ask(server, "alpha", "blue-user")
        try await ask(server, "base", "blue-user")
        // What the server refused has used nothing.
        let failed = try await server.post(
            "/v1/completions", #"{"prompt": "!"}"#, key: "blue-user")
        #expect(failed.status == 503)
        clock.advance(by: 1)
        try await ask(server, "beta", "red-user-1")
        let own = try await server.get("/admin/usage", key: "blue-admin")
        #expect(
            own.body
                == #"{"usage":[{"day":"2026-11-21","tenant":"blue","key":"user","adapter":null,"#
                + #""requests":1,"promptTokens":2,"completionTokens":3,"cachedTokens":1},"#
                + #"{"day":"2026-11-21","tenant":"blue","key":"user","adapter":"alpha","#
                + #""requests":2,"promptTokens":4,"completionTokens":6,"cachedTokens":2}],"#
                + #""next":null}"#, "\(own.body)")
        let all = try await server.get("/admin/usage?group=tenant", key: "operator-1")
        #expect(try all.value("usage")?.arrayValue?.count == 2)
        #expect(try all.string("usage.1.tenant") == "red")
        #expect(try all.integer("usage.1.completionTokens") == 3)
        let today = try await server.get("/admin/usage?since=2026-11-22", key: "operator-1")
        #expect(try today.value("usage")?.arrayValue?.count == 1)
    }

    @Test func othersUsageIsNotShown() async throws {
        let server = try await server(try TestClock(at: "2026-11-21T12:00:00Z"))
        try await ask(server, "alpha", "blue-user")
        try await ask(server, "beta", "blue-user")
        try await ask(server, "alpha", "red-user-1")
        let foreign = try await server.get("/admin/usage?tenant=red", key: "blue-admin")
        #expect(foreign.body == #"{"usage":[],"next":null}"#)
        let narrow = try await server.get("/admin/usage", key: "blue-narrow")
        #expect(try narrow.value("usage")?.arrayValue?.count == 1)
        #expect(try narrow.string("usage.0.adapter") == "alpha")
        #expect(!narrow.body.contains("beta"))
    }

    @Test func pagesAndBadQueries() async throws {
        let server = try await server(try TestClock(at: "2026-11-21T12:00:00Z"))
        for model in ["alpha", "base", "beta"] { try await ask(server, model, "blue-user") }
        var path = "/admin/usage?limit=1"
        var adapters: [String?] = []
        while adapters.count < 9 {
            let page = try await server.get(path, key: "blue-admin")
            guard try page.value("usage.0") != nil else { break }
            adapters.append(try page.string("usage.0.adapter"))
            guard let next = try page.string("next") else { break }
            path = "/admin/usage?limit=1&after=\(next)"
        }
        #expect(adapters == [nil, "alpha", "beta"])
        for bad in ["since=x", "until=2026-13-01", "group=hour", "limit=0", "after=x"] {
            #expect(try await server.get("/admin/usage?\(bad)", key: "blue-admin").status == 400)
        }
    }

    @Test func everEndlessNamesAreCountedTogether() async throws {
        let server = try await server(try TestClock(at: "2026-11-21T12:00:00Z"))
        let ledger = server.services.usage
        let principal = Principal(tenant: "blue", keyID: "user", roles: [.inference])
        for index in 0..<10_050 {
            ledger.record(principal, adapter: "sum-\(index)", UsageCounts.one)
        }
        try await ledger.flush()
        var query = UsageQuery()
        query.limit = .max
        let rows = try await server.registry.usage(query)
        #expect(rows.count == 10_001)
        #expect(rows.first { $0.key.adapter == "_other" }?.counts.requestCount == 50)
        #expect(rows.reduce(0) { $0 + $1.counts.requestCount } == 10_050)
    }

    @Test func whatCannotBeWrittenIsKept() async throws {
        let server = try await server(try TestClock(at: "2026-11-21T12:00:00Z"))
        try await ask(server, "alpha", "blue-user")
        await server.registry.close()
        await #expect(throws: RegistryError.self) { try await server.services.usage.flush() }
        // Not lost: it fails again rather than having nothing to write.
        await #expect(throws: RegistryError.self) { try await server.services.usage.flush() }
    }
}

extension UsageCounts {
    fileprivate static var one: UsageCounts {
        var counts = UsageCounts()
        counts.requestCount = 1
        return counts
    }
}
