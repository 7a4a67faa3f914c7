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

/// Role × route × adapter. A route that is registered and has no row in `rows` fails the first test:
/// say there who may call it, on which adapters, and what it answers.
@Suite struct AccessMatrixTests {
    /// What of an adapter a route needs.
    enum Target {
        /// It names none.
        case none
        /// It lists all that the caller may see.
        case list
        /// One to run on: of the tenant or shared.
        case model
        /// One of the tenant's, to change or look at.
        case own
        /// A name that need not exist yet.
        case new
        /// A name that may not exist yet; one of the tenant's is 400.
        case fresh
        /// One that the tenant's requests may run on.
        case usable
        /// Another name for one of the tenant's, `nick-NAME`. That is in no key's list.
        case alias
    }

    enum Body {
        case nothing
        /// With `NAME` for the adapter.
        case json(String)
        case archive(String)
    }

    struct Row {
        let route: String
        let role: Role?
        let target: Target
        /// What a caller gets who may.
        let status: Int
        let body: Body
        /// Changes the registry, or what other requests get.
        let changes: Bool
        /// What a caller gets who may call it, but not on this adapter.
        let refusal: Int

        /// As it is registered.
        var path: String { route.replacing("nick-", with: "") }

        init(
            _ route: String, _ role: Role?, _ target: Target = .none, _ status: Int = 200,
            _ body: Body = .nothing, changes: Bool = false, refusal: Int = 404
        ) {
            self.route = route
            self.role = role
            self.target = target
            self.status = status
            self.body = body
            self.changes = changes
            self.refusal = refusal
        }
    }

    static let rows: [Row] = [
        Row("GET /health", nil), Row("GET /health/live", nil), Row("GET /health/ready", nil),
        Row("GET /health/startup", nil), Row("GET /ping", nil), Row("GET /version", nil),
        Row("GET /metrics", .metrics),
        Row("GET /v1/models", .inference, .list), Row("GET /v1/models/**", .inference, .model),
        Row(
            "POST /v1/completions", .inference, .model, 200,
            .json(#"{"model": "NAME", "prompt": "a", "max_tokens": 1}"#)),
        Row(
            "POST /v1/chat/completions", .inference, .model, 200,
            .json(
                #"{"adapter_id": "NAME", "max_tokens": 1, "#
                    + #""messages": [{"role": "user", "content": "a"}]}"#)),
        Row(
            "POST /tokenize", .inference, .model, 200,
            .json(#"{"model": "base:NAME", "prompt": "a"}"#)),
        Row(
            "POST /detokenize", .inference, .model, 200,
            .json(#"{"lora": [{"name": "NAME"}], "tokens": [97]}"#)),
        Row("GET /lora-adapters", .inference, .list),
        Row("GET /admin/adapters", .admin, .list), Row("GET /admin/adapters/{name}", .admin, .own),
        Row("GET /admin/adapters/{name}/versions", .admin, .own),
        Row("GET /admin/events", .admin, .list), Row("GET /admin/usage", .admin, .list),
        Row("GET /admin/uploads", .admin), Row("GET /admin/aliases", .admin, .list),
        Row("GET /admin/aliases/nick-{name}", .admin, .own),
        Row(
            "PUT /admin/aliases/nick-{name}", .admin, .alias, 200, .json(#"{"adapter": "NAME"}"#)),
        Row("DELETE /admin/aliases/nick-{name}", .admin, .alias, changes: true),
        Row("PUT /admin/adapters/{name}", .admin, .new, 201, .archive("new"), changes: true),
        Row("DELETE /admin/adapters/{name}", .admin, .own, changes: true),
        Row("POST /admin/adapters/{name}/pin", .admin, .own, changes: true),
        Row("POST /admin/adapters/{name}/unpin", .admin, .own),
        Row("POST /admin/adapters/{name}/disable", .admin, .own, changes: true),
        Row("POST /admin/adapters/{name}/enable", .admin, .own),
        // There is no earlier version.
        Row("POST /admin/adapters/{name}/rollback", .admin, .own, 409),
        // Nothing is merged over a fake engine; a caller who may not does not come so far.
        Row(
            "POST /admin/adapters/{name}/merge", .admin, .new, 400,
            .json(#"{"adapters": [{"name": "shared-listed"}]}"#)),
        Row(
            "POST /v1/load_lora_adapter", .admin, .new, 200,
            .json(#"{"lora_name": "NAME", "lora_path": "one", "load_inplace": true}"#),
            changes: true),
        Row("GET /v1/health", nil), Row("GET /", nil), Row("GET /load", .metrics),
        Row(
            "POST /completion", .inference, .model, 200,
            .json(#"{"lora": [{"name": "NAME"}], "prompt": "a", "n_predict": 1}"#)),
        Row(
            "POST /completions", .inference, .model, 200,
            .json(#"{"model": "NAME", "prompt": "a", "n_predict": 1, "stream": true}"#)),
        Row(
            "POST /apply-template", .inference, .model, 200,
            .json(#"{"model": "NAME", "messages": [{"role": "user", "content": "a"}]}"#)),
        Row("GET /props", .inference),
        Row(
            "POST /lora-adapters", .admin, .usable, 200,
            .json(#"[{"name": "NAME", "scale": 1.0}]"#), changes: true),
        Row(
            "POST /generate", .inference, .model, 200,
            .json(#"{"text": ["a", "b"], "lora_path": ["NAME", null]}"#)),
        Row("GET /get_model_info", .inference), Row("GET /model_info", .inference),
        Row("GET /health_generate", .inference), Row("GET /info", .inference),
        Row(
            "POST /load_lora_adapter", .admin, .fresh, 200,
            .json(#"{"lora_name": "NAME", "lora_path": "one"}"#), changes: true, refusal: 400),
        Row(
            "POST /unload_lora_adapter", .admin, .own, 200, .json(#"{"lora_name": "NAME"}"#),
            changes: true, refusal: 400),
        Row(
            "POST /", .inference, .model, 200,
            .json(#"{"inputs": "a", "parameters": {"adapter_id": "NAME", "details": true}}"#)),
        Row(
            "POST /generate_stream", .inference, .model, 200,
            .json(#"{"inputs": "a", "parameters": {"adapter_id": "NAME"}}"#)),
        Row(
            "POST /v1/unload_lora_adapter", .admin, .own, 200, .json(#"{"lora_name": "NAME"}"#),
            changes: true),
    ]

    /// Every adapter by its tenant. Names are such that none is part of another or of a message.
    static let adapters = [
        "blue-nightjar": "blue", "blue-listed": "blue", "shared-wagtail": "default",
        "shared-listed": "default", "red-kestrel": "red",
    ]

    struct Caller {
        let key: String?
        var roles: Set<Role> = []
        /// May be run on.
        var models: Set<String> = []
        /// May be changed.
        var own: Set<String> = []
        /// Stand in lists.
        var shown: Set<String> = []
        /// Shared ones that others of its tenant run on, which its usage shows.
        var used: Set<String> = []
        /// The key's list of adapters.
        var list: Set<String>?
        var isKnown = true

        func status(_ row: Row, _ adapter: String) -> Int {
            guard let role = row.role else { return row.status }
            guard isKnown else { return 401 }
            guard roles.contains(role) else { return 403 }
            let mayName = list?.contains(adapter) ?? true
            let may =
                switch row.target {
                case .none, .list: true
                case .model: models.contains(adapter)
                case .own: own.contains(adapter)
                case .alias: own.contains(adapter) && list == nil
                case .new: mayName
                case .fresh: mayName && !own.contains(adapter)
                case .usable: mayName && (own.contains(adapter) || adapter.hasPrefix("shared"))
                }
            return may ? row.status : row.refusal
        }
    }

    static let callers: [Caller] = [
        Caller(key: nil, isKnown: false), Caller(key: "nobodys-key", isKnown: false),
        Caller(key: "expired-key", isKnown: false),
        Caller(
            key: "blue-user-key", roles: [.inference],
            models: ["blue-nightjar", "blue-listed", "shared-wagtail", "shared-listed"]),
        Caller(
            key: "blue-admin-key", roles: [.admin], own: ["blue-nightjar", "blue-listed"],
            shown: ["blue-nightjar", "blue-listed"], used: ["shared-wagtail"]),
        Caller(key: "blue-metrics-key", roles: [.metrics]),
        Caller(
            key: "red-admin-key", roles: [.admin], own: ["red-kestrel"], shown: ["red-kestrel"]),
        Caller(
            key: "operator-key", roles: [.admin], own: ["shared-wagtail", "shared-listed"],
            shown: Set(adapters.keys)),
        Caller(
            key: "narrow-user-key", roles: [.inference], models: ["blue-listed", "shared-listed"],
            list: ["blue-listed", "shared-listed"]),
        Caller(
            key: "narrow-admin-key", roles: [.admin], own: ["blue-listed"],
            shown: ["blue-listed"], list: ["blue-listed", "shared-listed"]),
        Caller(
            key: "every-role-key", roles: [.inference, .admin, .metrics],
            models: ["blue-nightjar", "blue-listed", "shared-wagtail", "shared-listed"],
            own: ["blue-nightjar", "blue-listed"], shown: ["blue-nightjar", "blue-listed"]),
    ]

    private static let keys = """
        - {key: expired-key, tenant: blue, roles: [inference, admin, metrics], expires: '2020-01-01T00:00:00Z'}
        - {key: blue-user-key, tenant: blue, roles: [inference]}
        - {key: blue-admin-key, tenant: blue, roles: [admin]}
        - {key: blue-metrics-key, tenant: blue, roles: [metrics]}
        - {key: red-admin-key, tenant: red, roles: [admin]}
        - {key: operator-key, tenant: default, roles: [admin]}
        - {key: narrow-user-key, tenant: blue, roles: [inference], adapters: [blue-listed, shared-listed]}
        - {key: narrow-admin-key, tenant: blue, roles: [admin], adapters: [blue-listed, shared-listed]}
        - {key: every-role-key, tenant: blue, roles: [inference, admin, metrics]}
        """

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
            #expect(served == (isOnServing ? row.status : 404), "\(row.route)")
            if row.changes { continue }
            let administered = try await send(administration, row, everyone, "blue-listed").status
            #expect(administered == (row.role == .inference ? 404 : row.status), "\(row.route)")
        }
    }
}
