import LorryAPI

/// The table: who may call which route on whose adapter. A route that is registered and has no row
/// in `rows` fails a test: say there who may call it, on which adapters, and what it answers.
extension AccessMatrixTests {
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
        /// The whole server, with every tenant's adapters.
        case server
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

        /// Takes an adapter away.
        var removes: Bool {
            route.contains("unload") || route.hasPrefix("DELETE /admin/adapters")
        }

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
        Row("POST /admin/backup", .admin, .server, refusal: 403),
        Row("POST /admin/check", .admin, .server, refusal: 403),
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
            // What all of a tenant's requests run on is not a limited key's to set.
            if case .usable = row.target, list != nil { return 403 }
            let mayName = list?.contains(adapter) ?? true
            let may =
                switch row.target {
                case .none, .list: true
                case .model: models.contains(adapter)
                case .own: own.contains(adapter)
                case .alias: own.contains(adapter) && list == nil
                case .server: key == "operator-key"
                case .new: mayName
                case .fresh: mayName && !own.contains(adapter)
                case .usable: own.contains(adapter) || adapter.hasPrefix("shared")
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
            key: "narrow-operator-key", roles: [.admin], own: ["shared-listed"],
            shown: ["blue-listed", "shared-listed"], list: ["blue-listed", "shared-listed"]),
        Caller(
            key: "every-role-key", roles: [.inference, .admin, .metrics],
            models: ["blue-nightjar", "blue-listed", "shared-wagtail", "shared-listed"],
            own: ["blue-nightjar", "blue-listed"], shown: ["blue-nightjar", "blue-listed"]),
    ]

    static let keys = """
        - {key: expired-key, tenant: blue, roles: [inference, admin, metrics], expires: '2020-01-01T00:00:00Z'}
        - {key: blue-user-key, tenant: blue, roles: [inference]}
        - {key: blue-admin-key, tenant: blue, roles: [admin]}
        - {key: blue-metrics-key, tenant: blue, roles: [metrics]}
        - {key: red-admin-key, tenant: red, roles: [admin]}
        - {key: operator-key, tenant: default, roles: [admin]}
        - {key: narrow-user-key, tenant: blue, roles: [inference], adapters: [blue-listed, shared-listed]}
        - {key: narrow-admin-key, tenant: blue, roles: [admin], adapters: [blue-listed, shared-listed]}
        - {key: narrow-operator-key, tenant: default, roles: [admin], adapters: [blue-listed, shared-listed]}
        - {key: every-role-key, tenant: blue, roles: [inference, admin, metrics]}
        """
}
