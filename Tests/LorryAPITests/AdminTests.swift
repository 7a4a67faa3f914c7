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

@Suite struct AdminTests {
    private func server(change: (inout APIServices) -> Void = { _ in }) throws -> TestServer {
        try TestServer(FakeEngine(saying: "x"), change: change)
    }

    /// A ustar archive of regular files (POSIX.1-2017, pax, "ustar Interchange Format").
    static func tar(_ files: [(String, String)]) -> [UInt8] {
        var archive: [UInt8] = []
        for (name, content) in files {
            var header = [UInt8](repeating: 0, count: 512)
            func put(_ text: String, at offset: Int) {
                for (index, byte) in text.utf8.enumerated() { header[offset + index] = byte }
            }
            func octal(_ value: Int, _ width: Int) -> String {
                let digits = String(value, radix: 8)
                return String(repeating: "0", count: width - digits.count) + digits
            }
            put(name, at: 0)
            put(octal(0o644, 7), at: 100)
            put(octal(0, 7), at: 108)
            put(octal(0, 7), at: 116)
            put(octal(content.utf8.count, 11), at: 124)
            put(octal(0, 11), at: 136)
            put("        ", at: 148)
            put("0", at: 156)
            put("ustar", at: 257)
            put("00", at: 263)
            put(octal(header.reduce(0) { $0 + Int($1) }, 6), at: 148)
            header[154] = 0
            archive += header + Array(content.utf8)
            archive += [UInt8](repeating: 0, count: (512 - content.utf8.count % 512) % 512)
        }
        return archive + [UInt8](repeating: 0, count: 1024)
    }

    static func files(_ weights: String) -> [(String, String)] {
        [("adapter_config.json", "{}"), ("adapter_model.safetensors", weights)]
    }

    private func put(
        _ server: TestServer, _ name: String, _ weights: String = "w", headers: HTTPFields = [:]
    ) async throws -> TestServer.Answer {
        var headers = headers
        headers[.contentType] = "application/x-tar"
        let bytes = Self.tar(Self.files(weights))
        return try await server.send(
            .put, "/admin/adapters/\(name)", headers: headers,
            chunks: [Array(bytes[..<700]), Array(bytes[700...])])
    }

    @Test func uploadOfATar() async throws {
        let server = try server()
        let answer = try await put(server, "alpha")
        #expect(answer.status == 201, "\(answer.body)")
        let version = try #require(try answer.string("version"))
        #expect(version.count == 64)
        #expect(answer.headers[.eTag] == "\"\(version)\"")
        #expect(try answer.string("name") == "alpha")
        #expect(try answer.string("method") == "lora")
        #expect(try answer.integer("rank") == 4)
        #expect(try answer.string("targets.0") == "q_proj")
        #expect(try answer.integer("byteCount") == 100)
        #expect(try answer.string("tenant") == "default")
        #expect(try answer.string("state") == "ready")
        #expect(try answer.value("pinned") == .bool(false))
        #expect(try #require(try answer.string("created")).hasSuffix("Z"))
        let again = try await put(server, "alpha")
        #expect(again.status == 200)
        #expect(try again.string("version") == version)
        let served = try await server.complete(#"{"model": "alpha", "prompt": "a"}"#)
        #expect(served.status == 200)
    }

    @Test func uploadAsMultipart() async throws {
        let server = try server()
        let body =
            Self.files("w").map { name, content in
                "--b\r\nContent-Disposition: form-data; name=\"files\"; filename=\"\(name)\"\r\n\r\n"
                    + "\(content)\r\n"
            }.joined() + "--b--\r\n"
        let answer = try await server.send(
            .put, "/admin/adapters/alpha",
            headers: [.contentType: "multipart/form-data; boundary=b"],
            chunks: body.utf8.map { [$0] })
        #expect(answer.status == 201, "\(answer.body)")
        // The same content by another way is the same version.
        #expect(try await put(server, "alpha").status == 200)
    }

    @Test func uploadByPath() async throws {
        let server = try server()
        let root = server.folder.appendingPathComponent("root")
        let source = root.appendingPathComponent("one")
        try FileManager.default.createDirectory(at: source, withIntermediateDirectories: true)
        for (name, content) in Self.files("w") {
            try content.write(
                to: source.appendingPathComponent(name), atomically: true, encoding: .utf8)
        }
        let json = #"{"path": "one"}"#
        #expect(try await putJSON(server, "alpha", json).status == 400)
        let open = try TestServer(FakeEngine(saying: "x")) { $0.allowedRoots = [root] }
        #expect(try await putJSON(open, "alpha", json).status == 201)
        #expect(try await putJSON(open, "beta", #"{"path": "../state"}"#).status == 400)
        #expect(try await putJSON(open, "beta", "{}").status == 400)
    }

    private func putJSON(
        _ server: TestServer, _ name: String, _ json: String
    ) async throws -> TestServer.Answer {
        try await server.send(
            .put, "/admin/adapters/\(name)", headers: [.contentType: "application/json"],
            chunks: [Array(json.utf8)])
    }

    @Test func refusedUploadsLeaveNothing() async throws {
        let server = try server()
        let send = { (type: String?, bytes: [UInt8]) in
            try await server.send(
                .put, "/admin/adapters/alpha", headers: type.map { [.contentType: $0] } ?? [:],
                chunks: [bytes])
        }
        let tar = Self.tar(Self.files("w"))
        #expect(try await send(nil, tar).status == 415)
        #expect(try await send("text/plain", tar).status == 415)
        #expect(try await send("application/x-tar", Array(tar[..<900])).status == 400)
        let pickle = Self.tar([("adapter_model.bin", "x")])
        let refused = try await send("application/x-tar", pickle)
        #expect((400..<500).contains(refused.status))
        #expect(try #require(try refused.string("error.message")).contains("adapter_model.bin"))
        #expect(try await send("multipart/form-data; boundary=b", Array("--b".utf8)).status == 400)
        #expect(try await put(server, "bad%20name").status == 400)
        #expect(try await put(server, "base").status == 409)
        let small = try TestServer(FakeEngine(saying: "x")) { $0.limits.uploadByteCount = 600 }
        #expect(try await put(small, "alpha").status == 413)
        for server in [server, small] {
            #expect(server.registry.count == 0)
            #expect(server.registry.openUploadCount == 0)
        }
    }

    @Test func preconditions() async throws {
        let server = try server()
        let missing = try await put(server, "alpha", headers: [.ifMatch: "*"])
        #expect(missing.status == 412)
        #expect(try missing.string("error.type") == "PreconditionFailedError")
        #expect(try await put(server, "alpha", headers: [.ifNoneMatch: "*"]).status == 201)
        #expect(try await put(server, "alpha", "2", headers: [.ifNoneMatch: "*"]).status == 412)
        let tag = try #require(try await server.get("/admin/adapters/alpha").headers[.eTag])
        #expect(try await put(server, "alpha", "2", headers: [.ifMatch: "W/\(tag)"]).status == 412)
        let next = try await put(server, "alpha", "2", headers: [.ifMatch: "\"x\", \(tag)"])
        #expect(next.status == 201)
        let old = try await server.send(
            .delete, "/admin/adapters/alpha", headers: [.ifMatch: tag])
        #expect(old.status == 412)
        let current = try #require(next.headers[.eTag])
        let unchanged = try await server.send(
            .get, "/admin/adapters/alpha", headers: [.ifNoneMatch: current])
        #expect(unchanged.status == 304)
    }

    @Test func namesWithTheSameContentKeepItForEachOther() async throws {
        let server = try server()
        let version = try #require(try await put(server, "alpha", "1").string("version"))
        _ = try await server.post("/admin/adapters/alpha/pin", "")
        #expect(try await put(server, "beta", "1").string("version") == version)
        #expect(try await server.send(.delete, "/admin/adapters/beta").status == 200)
        #expect(server.engine.calls.last == "pin \(version)")
        #expect(!server.engine.calls.contains("forget \(version)"))
        #expect(try await server.send(.delete, "/admin/adapters/alpha").status == 200)
        #expect(server.engine.calls.suffix(2) == ["unpin \(version)", "forget \(version)"])
    }

    @Test func lifeOfAnAdapter() async throws {
        let server = try server()
        let first = try #require(try await put(server, "alpha", "1").string("version"))
        let second = try #require(try await put(server, "alpha", "2").string("version"))
        #expect(server.engine.calls.contains("forget \(first)"))

        let versions = try await server.get("/admin/adapters/alpha/versions")
        #expect(try versions.string("versions.0.version") == second)
        #expect(try versions.value("versions.0.current") == .bool(true))
        #expect(try versions.string("versions.1.version") == first)

        let pinned = try await server.post("/admin/adapters/alpha/pin", "")
        #expect(try pinned.value("pinned") == .bool(true))
        #expect(server.engine.calls.suffix(2) == ["preload \(second)", "pin \(second)"])

        let back = try await server.send(.post, "/admin/adapters/alpha/rollback")
        #expect(try back.string("version") == first)
        #expect(
            server.engine.calls.suffix(4)
                == ["unpin \(second)", "forget \(second)", "preload \(first)", "pin \(first)"])
        let forward = try await server.post(
            "/admin/adapters/alpha/rollback", #"{"version": "\#(second.prefix(10))"}"#)
        #expect(try forward.string("version") == second)

        let off = try await server.post("/admin/adapters/alpha/disable", "")
        #expect(try off.string("state") == "disabled")
        #expect(try await server.complete(#"{"model": "alpha", "prompt": "a"}"#).status == 403)
        #expect(try await !server.get("/v1/models").body.contains("alpha"))
        #expect(
            try await server.post("/admin/adapters/alpha/enable", "").string("state") == "ready")
        #expect(
            try await server.post("/admin/adapters/alpha/unpin", "").value("pinned") == .bool(false)
        )

        let removed = try await server.send(.delete, "/admin/adapters/alpha")
        #expect(removed.status == 200)
        #expect(server.engine.calls.last == "forget \(second)")
        for method in [HTTPRequest.Method.get, .delete] {
            #expect(try await server.send(method, "/admin/adapters/alpha").status == 404)
        }
        #expect(try await server.complete(#"{"model": "alpha", "prompt": "a"}"#).status == 404)
        #expect(server.registry.leaseCount == 0)
    }

    @Test func rollbackWithoutAPast() async throws {
        let server = try server()
        _ = try await put(server, "alpha")
        #expect(try await server.send(.post, "/admin/adapters/alpha/rollback").status == 409)
    }

    @Test func listing() async throws {
        let server = try server()
        for name in ["c", "a", "b"] { _ = try await put(server, name, name) }
        let version = try #require(
            try await server.get("/admin/adapters/b").string("version"))
        server.engine.state.withLock {
            $0.statistics.residentAdapters = [
                .init(
                    id: LorryEngine.AdapterVersionID(version), name: "b", byteCount: 1,
                    leaseCount: 0, isPinned: false)
            ]
        }
        let page = try await server.get("/admin/adapters?limit=2")
        #expect(try page.string("adapters.0.name") == "a")
        #expect(try page.string("adapters.1.state") == "resident")
        let resident = try await server.get("/admin/adapters?state=resident")
        #expect(try resident.value("adapters")?.arrayValue?.count == 1)
        #expect(try resident.string("adapters.0.state") == "resident")
        #expect(try page.integer("remaining") == 1)
        let next = try #require(try page.string("next"))
        let rest = try await server.get("/admin/adapters?after=\(next)")
        #expect(try rest.value("adapters")?.arrayValue?.count == 1)
        #expect(try rest.string("adapters.0.name") == "c")
        #expect(try rest.value("next") == .null)
        #expect(try await server.get("/admin/adapters?prefix=b").integer("remaining") == 0)
        for bad in ["limit=0", "limit=x", "state=gone"] {
            #expect(try await server.get("/admin/adapters?\(bad)").status == 400)
        }
    }

    @Test func auditLog() async throws {
        let server = try server()
        _ = try await put(server, "alpha")
        _ = try await server.post("/admin/adapters/alpha/pin", "")
        _ = try await server.send(.delete, "/admin/adapters/alpha")
        let all = try await server.get("/admin/events")
        let events = try #require(try all.value("events")?.arrayValue?.map { $0.objectValue })
        #expect(events.map { $0?["action"]?.stringValue } == ["add", "pin", "remove"])
        #expect(events.map { $0?["name"]?.stringValue } == ["alpha", "alpha", "alpha"])
        let page = try await server.get("/admin/events?limit=1&order=desc")
        #expect(try page.string("events.0.action") == "remove")
        let last = try #require(try page.integer("next"))
        let older = try await server.get("/admin/events?limit=5&order=desc&before=\(last)")
        #expect(try older.value("events")?.arrayValue?.count == 2)
        #expect(try await server.get("/admin/events?after=x").status == 400)
    }

    @Test func liveEvents() async throws {
        let server = try server()
        _ = try await put(server, "alpha")
        let received = Mutex("")
        let task = Task {
            let response = try await server.response(
                .get, "/admin/events?after=0", headers: [.accept: "text/event-stream"],
                body: .init(buffer: ByteBuffer()))
            try await response.body.write(
                CollectingWriter { bytes in
                    received.withLock { $0 += String(decoding: bytes, as: UTF8.self) }
                })
        }
        while received.withLock({ !$0.contains("event: add\n") }) { await Task.yield() }
        _ = try await server.post("/admin/adapters/alpha/pin", "")
        while received.withLock({ !$0.contains("event: pin\n") }) { await Task.yield() }
        server.services.readiness.advance(to: .stopping)
        try await task.value
        let text = received.withLock { $0 }
        #expect(text.components(separatedBy: "event: add\n").count == 2)
        #expect(text.hasPrefix("id: "))
    }
}
