import Crypto
import Foundation
import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import Testing

@Suite struct AccessTests {
    static let yaml = """
        keys:
          - key: inference-key
            tenant: blue
            roles: [inference]
            adapters: [alpha]
            weight: 2.5
            limits: {max_concurrent: 2, max_tokens: 10}
          - key_sha256: \(hexadecimal("admin-secret"))
            tenant: default
            roles: [admin]
          - key: metrics-key
            tenant: ops
            roles: [metrics]
        """

    static func hexadecimal(_ key: String) -> String {
        SHA256.hash(data: Data(key.utf8)).map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0\(digits)" : digits
        }.joined()
    }

    private func server() throws -> TestServer {
        try TestServer(FakeEngine(saying: "x"), keys: APIKeys(yaml: Self.yaml))
    }

    /// Every route with the role that it asks for; nil for those that ask for none.
    static let routes: [(HTTPRequest.Method, String, String?)] = [
        (.get, "/health", nil), (.get, "/health/live", nil), (.get, "/health/ready", nil),
        (.get, "/health/startup", nil), (.get, "/ping", nil), (.get, "/version", nil),
        (.get, "/metrics", "metrics-key"),
        (.get, "/v1/models", "inference-key"), (.get, "/v1/models/x", "inference-key"),
        (.post, "/v1/completions", "inference-key"),
        (.post, "/v1/chat/completions", "inference-key"), (.post, "/tokenize", "inference-key"),
        (.post, "/detokenize", "inference-key"), (.get, "/lora-adapters", "inference-key"),
        (.get, "/admin/adapters", "admin-secret"), (.put, "/admin/adapters/x", "admin-secret"),
        (.get, "/admin/adapters/x", "admin-secret"), (.delete, "/admin/adapters/x", "admin-secret"),
        (.get, "/admin/adapters/x/versions", "admin-secret"),
        (.post, "/admin/adapters/x/pin", "admin-secret"),
        (.post, "/admin/adapters/x/unpin", "admin-secret"),
        (.post, "/admin/adapters/x/disable", "admin-secret"),
        (.post, "/admin/adapters/x/enable", "admin-secret"),
        (.post, "/admin/adapters/x/rollback", "admin-secret"),
        (.get, "/admin/events", "admin-secret"), (.post, "/v1/load_lora_adapter", "admin-secret"),
        (.post, "/v1/unload_lora_adapter", "admin-secret"),
    ]

    @Test func everyRouteAsksForItsRole() async throws {
        let server = try server()
        for (method, path, needed) in Self.routes {
            for key in [nil, "wrong-key", "inference-key", "admin-secret", "metrics-key"] {
                let answer = try await server.send(method, path, headers: TestServer.headers(key))
                let isRefused = answer.status == 401 || answer.status == 403
                if needed == nil || key == needed {
                    #expect(!isRefused, "\(method) \(path) with \(key ?? "none")")
                } else {
                    let status = key == nil || key == "wrong-key" ? 401 : 403
                    #expect(answer.status == status, "\(method) \(path) with \(key ?? "none")")
                }
            }
        }
    }

    @Test func otherFormsOfTheKey() async throws {
        let server = try server()
        let name = try #require(HTTPField.Name("x-api-key"))
        let plain = try await server.send(.get, "/v1/models", headers: [name: "inference-key"])
        #expect(plain.status == 200)
        let lower = try await server.send(
            .get, "/v1/models", headers: [.authorization: "bearer inference-key"])
        #expect(lower.status == 200)
        let basic = try await server.send(
            .get, "/v1/models", headers: [.authorization: "Basic inference-key"])
        #expect(basic.status == 401)
        #expect(basic.headers[.wwwAuthenticate] == "Bearer")
    }

    @Test func aKeySeesOnlyItsAdapters() async throws {
        let server = try server()
        try await server.addAdapter("alpha")
        try await server.addAdapter("beta")
        let models = try await server.get("/v1/models", key: "inference-key")
        #expect(models.body.contains(#""id":"alpha""#))
        #expect(!models.body.contains("beta"))
        #expect(try await server.get("/v1/models/beta", key: "inference-key").status == 404)
        for (name, status) in [("alpha", 200), ("beta", 404), ("base:beta", 404), ("base", 200)] {
            let answer = try await server.post(
                "/v1/completions", #"{"prompt": "a", "max_tokens": 1, "model": "\#(name)"}"#,
                key: "inference-key")
            #expect(answer.status == status, "\(name)")
        }
    }

    @Test func aKeysTenantAndWeightReachTheEngine() async throws {
        let server = try server()
        _ = try await server.post(
            "/v1/completions", #"{"prompt": "a", "max_tokens": 1}"#, key: "inference-key")
        let request = try #require(server.engine.requests.first)
        #expect(request.tenant == "blue")
        #expect(request.weight == 2.5)
        #expect(try APIKeys(yaml: Self.yaml).tenantCount == 1)
    }

    @Test func aKeysLimits() async throws {
        let server = try server()
        let many = try await server.post(
            "/v1/completions", #"{"prompt": "a", "max_tokens": 1, "n": 3}"#, key: "inference-key")
        // It would never pass, however often it is tried again.
        #expect(many.status == 400)
        let few = try await server.post(
            "/v1/completions", #"{"prompt": "a", "max_tokens": 1, "n": 2}"#, key: "inference-key")
        #expect(few.status == 200)
        let again = try await server.post(
            "/v1/completions", #"{"prompt": "a", "max_tokens": 1, "n": 2}"#, key: "inference-key")
        #expect(again.status == 200)
        let long = try await server.post(
            "/v1/completions", #"{"prompt": "a", "max_tokens": 11}"#, key: "inference-key")
        #expect(long.status == 400)
        #expect(try long.string("error.param") == "max_tokens")
    }

    @Test(arguments: [
        ("5", "must be a list"), ("[]", "names no key"), ("keys: 1", "must be a list"),
        ("[a]", "must be a mapping"), ("- {tenant: a, roles: [admin]}", "exactly one of"),
        ("- {key: short, tenant: a, roles: [admin]}", "at least 8 bytes"),
        ("- {key: 12345678, tenant: a, roles: [admin]}", "quoted string"),
        ("- {key_sha256: abc, tenant: a, roles: [admin]}", "64 hexadecimal digits"),
        ("- {key: longenough, roles: [admin]}", "'tenant'"),
        ("- {key: longenough, tenant: a, roles: []}", "'roles'"),
        ("- {key: longenough, tenant: a, roles: [king]}", "unknown role 'king'"),
        ("- {key: longenough, tenant: a, roles: [admin], rolls: 1}", "unknown field 'rolls'"),
        ("- {key: longenough, tenant: a, roles: [admin], weight: 0}", "'weight'"),
        ("- {key: longenough, tenant: a, roles: [admin], weight: heavy}", "'weight'"),
        ("- {key: longenough, tenant: a, roles: [admin], limits: {x: 1}}", "'limits'"),
        ("- {key: longenough, tenant: a, roles: [admin], limits: {max_tokens: 0}}", "'limits'"),
        ("a: [", "not valid YAML"),
    ])
    func badKeyFiles(_ yaml: String, _ words: String) {
        let error = #expect(throws: APIKeys.FileError.self) { try APIKeys(yaml: yaml) }
        #expect(error?.description.contains(words) == true, "\(error?.description ?? "")")
    }

    @Test func aKeyTwice() {
        let key = "{key: longenough, tenant: a, roles: [admin]}"
        let error = #expect(throws: APIKeys.FileError.self) {
            try APIKeys(yaml: "- \(key)\n- \(key)")
        }
        #expect(error?.description.contains("repeats") == true)
    }
}
