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
        ("- {key: longenough, tenant: a, roles: [admin], limits: {x: 1}}", "'limits.x'"),
        (
            "- {key: longenough, tenant: a, roles: [admin], limits: {max_tokens: 0}}",
            "'limits.max_tokens'"
        ),
        ("- {key: longenough, tenant: a, roles: [admin], limits: 5}", "'limits' must be a mapping"),
        ("- {key: longenough, tenant: a, roles: [admin], id: 5}", "'id'"),
        ("- {key: longenough, tenant: a, roles: [admin], id: a/b}", "'id'"),
        ("- {key: longenough, tenant: a, roles: [admin], expires: soon}", "'expires'"),
        ("{keys: [{key: longenough, tenant: a, roles: [admin]}], tennants: {}}", "'tennants'"),
        ("{keys: [{key: longenough, tenant: a, roles: [admin]}], tenants: 1}", "'tenants'"),
        (
            "{keys: [{key: longenough, tenant: a, roles: [admin]}], tenants: {a: {rpm: 1}}}",
            "tenant 'a' of the API keys file: unknown field 'rpm'"
        ),
        (
            "{keys: [{key: longenough, tenant: a, roles: [admin]}], tenants: {a: {max_adapters: -1}}}",
            "'max_adapters' must be a whole number from 0 to"
        ),
        (
            "[{key: longenough, tenant: a, roles: [admin], id: x}, "
                + "{key: longenough2, tenant: a, roles: [admin], id: x}]", "'id' x is an earlier"
        ),
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
