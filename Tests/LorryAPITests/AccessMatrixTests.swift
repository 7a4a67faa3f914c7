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

/// Role × route × adapter, as the table of this suite has it.
@Suite struct AccessMatrixTests {
    private func server(_ listener: Listener = .sole) async throws -> TestServer {
        let server = try TestServer(
            FakeEngine(saying: "x"), keys: APIKeys(yaml: Self.keys), listener: listener
        ) { services in
            services.allowedRoots = [Self.root]
        }
        for (name, tenant) in Self.adapters.sorted(by: { $0.key < $1.key }) {
            try await server.addAdapter(name, name, tenant: tenant)
            try await server.registry.setAlias(
                name: "nick-\(name)", tenant: tenant, to: name, actor: "test")
            var counts = UsageCounts()
            counts.requestCount = 1
            server.services.usage.record(
                Principal(tenant: tenant, keyID: "id", roles: []), adapter: name, counts)
        }
        return server
    }

    /// A folder with an adapter in it, for routes that take a path.
    private static let root: URL = {
        let root = FileManager.default.temporaryDirectory.appendingPathComponent(
            "lorry-matrix-\(ProcessInfo.processInfo.processIdentifier)")
        let folder = root.appendingPathComponent("one")
        try? FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for (name, content) in AdminTests.files("by path") {
            try? content.write(
                to: folder.appendingPathComponent(name), atomically: true, encoding: .utf8)
        }
        return root
    }()

    private func send(
        _ server: TestServer, _ row: Row, _ caller: Caller, _ adapter: String
    ) async throws -> TestServer.Answer {
        let parts = row.route.split(separator: " ").map(String.init)
        let method = try #require(HTTPRequest.Method(parts[0]))
        let path = parts[1].replacing("{name}", with: adapter).replacing("**", with: adapter)
        var headers = TestServer.headers(caller.key)
        switch row.body {
        case .nothing: return try await server.send(method, path, headers: headers)
        case .json(let text):
            headers[.contentType] = "application/json"
            let bytes = Array(text.replacing("NAME", with: adapter).utf8)
            return try await server.send(method, path, headers: headers, chunks: [bytes])
        case .archive(let weights):
            headers[.contentType] = "application/x-tar"
            let bytes = AdminTests.tar(AdminTests.files(weights))
            return try await server.send(method, path, headers: headers, chunks: [bytes])
        }
    }

    private func check(
        _ server: TestServer, _ row: Row, _ caller: Caller, _ adapter: String
    ) async throws {
        let answer = try await send(server, row, caller, adapter)
        let about = "\(row.route) on \(adapter) with \(caller.key ?? "no key")"
        #expect(
            answer.status == caller.status(row, adapter), "\(about): \(answer.body.prefix(200))")
        // Whoever scrapes sees all labels; nobody else sees a name that is not theirs.
        guard row.role != .metrics else { return }
        let known = caller.models.union(caller.shown).union(caller.used).union([
            adapter, "shared-listed",
        ])
        for name in Self.adapters.keys where !known.contains(name) {
            #expect(!answer.body.contains(name), "\(about) tells of \(name)")
        }
        if row.role == .inference, answer.status == 200, case .list = row.target {
            for name in caller.models { #expect(answer.body.contains(name), "\(about)") }
        }
        if row.role == .admin, answer.status == 200, case .list = row.target {
            for name in caller.shown { #expect(answer.body.contains(name), "\(about)") }
        }
    }

    @Test func everyRegisteredRouteIsInTheTable() async throws {
        let services = try await server().services
        let registered = APIRouter.routes(services)
        #expect(registered.count == Self.rows.count)
        #expect(Set(registered.map { "\($0.method) \($0.path)" }) == Set(Self.rows.map(\.path)))
        for route in registered {
            let row = Self.rows.first { $0.path == "\(route.method) \(route.path)" }
            #expect(row?.role == route.role, "\(route.path)")
        }
    }

    @Test func nobodyComesFurtherThanTheTableSays() async throws {
        let server = try await server()
        let before = server.registry.list()
        for row in Self.rows {
            for caller in Self.callers {
                for adapter in Self.adapters.keys.sorted() {
                    // What changes something has a registry of its own, below.
                    if row.changes, caller.status(row, adapter) < 400 { continue }
                    try await check(server, row, caller, adapter)
                }
            }
        }
        #expect(server.registry.list() == before)
        server.engine.state.withLock { $0.requests = [] }
        #expect(server.registry.leaseCount == 0)
        #expect(server.registry.openUploadCount == 0)
    }

    @Test(arguments: rows.indices.filter { rows[$0].changes })
    func whoMayChangesWhatIsTheirs(_ index: Int) async throws {
        let row = Self.rows[index]
        for caller in Self.callers {
            let allowed = Self.adapters.keys.sorted().filter { caller.status(row, $0) < 400 }
            guard !allowed.isEmpty else { continue }
            var server = try await server()
            for adapter in allowed {
                if row.removes {
                    // What an alias stands for is not removed.
                    try await server.registry.removeAlias(
                        name: "nick-\(adapter)", tenant: try #require(Self.adapters[adapter]),
                        actor: "test")
                }
                try await check(server, row, caller, adapter)
                // What was added to the tenant stands in its next answer.
                if case .fresh = row.target { server = try await self.server() }
            }
        }
    }

    /// A name that a key may not use, and one that there is not, are answered alike.
    @Test func unknownAndForbiddenLookTheSame() async throws {
        let server = try await server()
        for row in Self.rows {
            guard case .own = row.target else { continue }
            try await compare(server, row, "narrow-admin-key", "blue-nightjar")
            try await compare(server, row, "blue-admin-key", "red-kestrel")
        }
        for row in Self.rows {
            guard case .model = row.target else { continue }
            try await compare(server, row, "narrow-user-key", "blue-nightjar")
            try await compare(server, row, "blue-user-key", "red-kestrel")
        }
    }

    private func compare(
        _ server: TestServer, _ row: Row, _ key: String, _ forbidden: String
    ) async throws {
        let caller = try #require(Self.callers.first { $0.key == key })
        let unknown = String(repeating: "x", count: forbidden.count)
        let first = try await send(server, row, caller, forbidden)
        let second = try await send(server, row, caller, unknown)
        #expect(first.status == row.refusal, "\(row.route) \(first.body)")
        #expect(first.body.replacing(forbidden, with: unknown) == second.body, "\(row.route)")
        #expect(first.headers == second.headers)
    }

    @Test func mergesReadOnlyWhatTheKeyMayUse() async throws {
        let server = try await server()
        for (key, source, status) in [
            ("narrow-admin-key", "blue-nightjar", 404), ("narrow-admin-key", "shared-listed", 400),
            ("blue-admin-key", "red-kestrel", 404), ("blue-admin-key", "shared-wagtail", 400),
        ] {
            let answer = try await server.post(
                "/admin/adapters/blue-listed/merge", #"{"adapters": [{"name": "\#(source)"}]}"#,
                key: key)
            #expect(answer.status == status, "\(key) \(source)")
        }
    }

    @Test func positionsAreThoseOfTheKeysOwnList() async throws {
        let server = try await server()
        for (position, status) in [(0, 200), (1, 200), (2, 404)] {
            let answer = try await server.post(
                "/v1/completions",
                #"{"prompt": "a", "max_tokens": 1, "lora": [{"id": \#(position)}]}"#,
                key: "narrow-user-key")
            #expect(answer.status == status)
        }
    }

    @Test(arguments: callers.indices.filter { callers[$0].roles.contains(.admin) })
    func theStreamOfEventsTellsWhatTheListTells(_ index: Int) async throws {
        let caller = Self.callers[index]
        let server = try await server()
        var headers = TestServer.headers(caller.key)
        headers[.accept] = "text/event-stream"
        let response = try await server.response(
            .get, "/admin/events?after=0", headers: headers, body: .init(buffer: ByteBuffer()))
        server.services.readiness.advance(to: .stopping)
        let (bytes, continuation) = AsyncStream.makeStream(of: [UInt8].self)
        try await response.body.write(CollectingWriter { continuation.yield($0) })
        continuation.finish()
        let text = await bytes.reduce(into: "") { $0 += String(decoding: $1, as: UTF8.self) }
        for name in Self.adapters.keys {
            #expect(text.contains(name) == caller.shown.contains(name), "\(name)")
        }
    }

    @Test func otherMethodsTellNothingToStrangers() async throws {
        let server = try await server()
        for (key, status) in [
            (nil, 401), ("blue-user-key", 403), ("blue-admin-key", 405),
        ] {
            let answer = try await server.send(
                .patch, "/admin/adapters/blue-listed", headers: TestServer.headers(key))
            #expect(answer.status == status)
            #expect(answer.headers[.allow] == (status == 405 ? "DELETE, GET, PUT" : nil))
        }
        #expect(try await server.send(.head, "/admin/adapters").status == 401)
        #expect(try await server.send(.post, "/health").status == 405)
        for key in [nil, "blue-admin-key"] {
            for path in ["/admin", "/admin/", "/admin/x", "/v1", "/admin/adapters/a/b/c", "/x"] {
                #expect(try await server.get(path, key: key).status == 404, "\(path)")
            }
        }
    }

    /// A proxy's rules on paths hold: what is not written as the route is written is no route.
    @Test func noRouteHasAnotherSpelling() async throws {
        let server = try await server()
        let before = server.registry.list()
        for row in Self.rows {
            let parts = row.route.split(separator: " ").map(String.init)
            let method = try #require(HTTPRequest.Method(parts[0]))
            let path = parts[1].replacing("{name}", with: "blue-listed")
                .replacing("**", with: "blue-listed")
            let slashes = path.indices.filter { path[$0] == "/" }
            let doubled = slashes.map { path[..<$0] + "/" + path[$0...] }
            var others = [
                path + (path == "/" ? "//" : "/"), String(path.dropFirst()), "http://a" + path,
                path + (path == "/" ? "" : "/") + "//?a=b", "/." + path,
            ]
            if let first = path.utf8.dropFirst().first {
                others.append("/%" + String(first, radix: 16) + path.dropFirst(2))
            }
            for caller in Self.callers {
                for other in doubled.map(String.init) + others {
                    let answer = try await server.send(
                        method, other, headers: TestServer.headers(caller.key))
                    #expect(answer.status == 404, "\(method) \(other)")
                }
            }
        }
        #expect(server.registry.list() == before)
    }

    @Test func anAddressOfItsOwnForAdministration() async throws {
        let serving = try await server(.serving)
        let administration = try await server(.administration)
        func paths(_ listener: Listener) -> Set<String> {
            Set(
                APIRouter.routes(serving.services, for: listener).map {
                    "\($0.method) \($0.path)"
                })
        }
        #expect(paths(.serving).union(paths(.administration)) == paths(.sole))
        #expect(
            paths(.serving).intersection(paths(.administration))
                == Set(Self.rows.filter { $0.role == nil }.map(\.path)))
        let everyone = try #require(Self.callers.last)
        for row in Self.rows {
            let served = try await send(serving, row, everyone, "blue-listed").status
            let isOnServing = row.role == nil || row.role == .inference
            let expected = everyone.status(row, "blue-listed")
            let missing = { (listener: Listener) in
                // Another method of the path may be there.
                let path = row.path.split(separator: " ")[1]
                return paths(listener).contains { $0.hasSuffix(" \(path)") } ? 405 : 404
            }
            #expect(served == (isOnServing ? expected : missing(.serving)), "\(row.route)")
            if row.changes { continue }
            let administered = try await send(administration, row, everyone, "blue-listed").status
            let isInference = row.role == .inference
            #expect(
                administered == (isInference ? missing(.administration) : expected), "\(row.route)")
        }
    }
}
