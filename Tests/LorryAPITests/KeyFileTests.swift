import Foundation
import HTTPTypes
import Hummingbird
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import NIOCore
import Testing

@Suite struct KeyFileTests {
    private let folder: URL

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "lorry-keys-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    private var path: String { folder.appendingPathComponent("keys.yaml").path }

    private func write(_ entries: String..., mode: Int = 0o600, atomically: Bool = true) throws {
        let text = entries.map { "- {\($0), tenant: a, roles: [admin]}\n" }.joined()
        try text.write(toFile: path, atomically: atomically, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
    }

    private func changes(_ outcome: KeyFile.Outcome, _ ring: KeyRing) -> String? {
        guard case .read(let keys) = outcome else { return nil }
        return ring.replace(with: keys).description
    }

    @Test(arguments: [true, false]) func aChangedFileIsReadOnceItIsSettled(
        atomically: Bool
    ) throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try write("key: first-key, id: one", "key: second-key, id: two")
        var file = try KeyFile(path: path)
        let ring = KeyRing(file.keys)
        guard case .unchanged = file.poll() else { return #expect(Bool(false), "not changed yet") }
        try write(
            "key: other-key, id: two", "key: third-key, id: three", atomically: atomically)
        // Seen for the first time: it may still be written.
        guard case .unchanged = file.poll() else { return #expect(Bool(false), "not settled") }
        #expect(changes(file.poll(), ring) == "added: three; removed: one; changed: two")
        guard case .unchanged = file.poll() else { return #expect(Bool(false), "read twice") }
    }

    @Test func aHangupReadsAtOnce() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try write("key: first-key, id: one")
        var file = try KeyFile(path: path)
        let ring = KeyRing(file.keys)
        try write("key: first-key, id: one", "key: second-key, id: two")
        #expect(changes(file.poll(isForced: true), ring) == "added: two")
        guard case .unchanged = file.poll(isForced: true) else {
            return #expect(Bool(false), "the same content is no change")
        }
    }

    @Test func anInvalidFileIsRefusedOnceAndKeepsTheKeys() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try write("key: first-key, id: one")
        var file = try KeyFile(path: path)
        try "- {key: short}".write(toFile: path, atomically: true, encoding: .utf8)
        _ = file.poll()
        guard case .refused(let reason) = file.poll() else {
            return #expect(Bool(false), "accepted")
        }
        #expect(reason.contains("'key' must have at least 8 bytes"))
        guard case .unchanged = file.poll() else { return #expect(Bool(false), "told twice") }
        try FileManager.default.removeItem(atPath: path)
        _ = file.poll()
        guard case .refused(let gone) = file.poll() else { return #expect(Bool(false), "gone") }
        #expect(gone.contains(path))
        try write("key: first-key, id: one", "key: second-key, id: two")
        #expect(changes(file.poll(isForced: true), KeyRing(file.keys)) != nil)
    }

    @Test func warnsOfWhatIsUnsafe() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        try write("key: first-key, id: one", mode: 0o644)
        let warnings = try KeyFile(path: path).warnings
        #expect(warnings.count == 2)
        #expect(warnings.first?.contains("every user") == true)
        #expect(warnings.last?.contains("(one)") == true)
        try write("key_sha256: \(APIKeys.digest(of: "first-key"))")
        #expect(try KeyFile(path: path).warnings.isEmpty)
    }

    @Test func numbersHaveABoundAndLimitsOfNobodyAreTold() throws {
        let keys = "keys: [{key: some-secret, tenant: blue, roles: [inference]}]\n"
        for field in ["tokens_per_minute", "max_concurrent", "tokens_per_day"] {
            #expect(throws: APIKeys.FileError.self) {
                try APIKeys(yaml: keys + "tenants: {blue: {\(field): 9223372036854775807}}")
            }
            _ = try APIKeys(yaml: keys + "tenants: {blue: {\(field): 1000000000000000}}")
        }
        let misspelt = try APIKeys(yaml: keys + "tenants: {bleu: {max_adapters: 1}, blue: {}}")
        #expect(misspelt.unusedTenants == ["bleu"])
    }

    @Test func randomKeysDiffer() throws {
        let keys = Set((0..<100).map { _ in APIKeys.randomKey() })
        #expect(keys.count == 100)
        #expect(keys.allSatisfy { $0.hasPrefix("lorry_") && $0.utf8.count == 49 })
        #expect(APIKeys.digest(of: "abc").hasPrefix("ba7816bf8f01cfea"))
    }

    @Test func aReplacedKeyIsRefusedAndARotatedOneTakesItsPlace() async throws {
        let yaml = { (key: String) in "- {key: \(key), id: one, tenant: a, roles: [inference]}" }
        let server = try TestServer(
            FakeEngine(saying: "x"), keys: APIKeys(yaml: yaml("first-key")))
        #expect(try await server.get("/v1/models", key: "first-key").status == 200)
        let ring = try #require(server.services.keys)
        ring.replace(with: try APIKeys(yaml: yaml("second-key")))
        #expect(try await server.get("/v1/models", key: "first-key").status == 401)
        #expect(try await server.get("/v1/models", key: "second-key").status == 200)
    }

    @Test(arguments: [
        "2026-11-21T12:00:10Z", "'2026-11-21T12:00:10Z'", "'2026-11-21T13:00:10+01:00'",
    ])
    func aKeyExpires(_ time: String) async throws {
        let clock = try TestClock(at: "2026-11-21T12:00:00Z")
        let server = try TestServer(
            FakeEngine(saying: "x"),
            keys: APIKeys(
                yaml: "- {key: first-key, tenant: a, roles: [inference], expires: \(time)}"),
            clock: clock)
        #expect(try await server.get("/v1/models", key: "first-key").status == 200)
        clock.advance(by: 10)
        let late = try await server.get("/v1/models", key: "first-key")
        #expect(late.status == 401)
        #expect(try late.string("error.message") == "The API key has expired.")
    }

    /// With no further event, so that nothing but its key's end can end the stream.
    @Test func anEventStreamEndsWhenItsKeyExpires() async throws {
        let clock = try TestClock(at: "2026-11-21T12:00:00Z")
        let server = try TestServer(
            FakeEngine(saying: "x"),
            keys: APIKeys(
                yaml: "- {key: first-key, tenant: a, roles: [admin], "
                    + "expires: 2026-11-21T12:00:10Z}"),
            clock: clock)
        try await server.addAdapter("alpha", tenant: "a")
        let response = try await server.response(
            .get, "/admin/events?after=0",
            headers: [.authorization: "Bearer first-key", .accept: "text/event-stream"],
            body: .init(buffer: .init()))
        let (texts, continuation) = AsyncStream.makeStream(of: String.self)
        let reader = Task {
            try await response.body.write(
                CollectingWriter { continuation.yield(String(decoding: $0, as: UTF8.self)) })
            continuation.finish()
        }
        var iterator = texts.makeAsyncIterator()
        #expect(await iterator.next()?.contains("alpha") == true)
        clock.advance(by: 9)
        try await server.addAdapter("beta", tenant: "a")
        #expect(await iterator.next()?.contains("beta") == true)
        clock.advance(by: 1)
        #expect(await iterator.next() == nil)
        try await reader.value
    }

    @Test func anEventStreamEndsWithItsKey() async throws {
        let yaml = { (key: String) in "- {key: \(key), id: one, tenant: a, roles: [admin]}" }
        let server = try TestServer(
            FakeEngine(saying: "x"), keys: APIKeys(yaml: yaml("first-key")))
        try await server.addAdapter("alpha", tenant: "a")
        let response = try await server.response(
            .get, "/admin/events?after=0",
            headers: [.authorization: "Bearer first-key", .accept: "text/event-stream"],
            body: .init(buffer: .init()))
        let (started, continuation) = AsyncStream.makeStream(of: String.self)
        let reader = Task {
            try await response.body.write(
                CollectingWriter { continuation.yield(String(decoding: $0, as: UTF8.self)) })
            continuation.finish()
        }
        var texts = started.makeAsyncIterator()
        #expect(await texts.next()?.contains("alpha") == true)
        try #require(server.services.keys).replace(with: try APIKeys(yaml: yaml("second-key")))
        try await server.addAdapter("beta", tenant: "a")
        // It ends, and beta was not told.
        #expect(await texts.next() == nil)
        try await reader.value
    }
}
