import Foundation
import NIOHTTP1
import Testing

extension EndToEndTests {
    /// `lorry state backup|restore|check` beside a server and without one.
    struct StateCommandTests {
        private static let prompt = Ask("shout", .text("Once upon a time"), 8)

        private func run(_ arguments: [String]) async throws -> (Ending, String, String) {
            let result = try await LorryProcess.result(["state"] + arguments)
            return (result.ending, result.output, result.errors)
        }

        @Test func aBackupBesideAServerIsServedAfterARestore() async throws {
            let scratch = try ScratchFolder()
            let file = scratch.url.appending(path: "backup.tar").path
            let copy = try ScratchFolder()
            let folder = scratch.url.appending(path: "folder").path
            var answers: [Int] = []
            try await LorryServer.run { server in
                let url = "http://127.0.0.1:\(server.client.port)"
                let (ending, output, errors) = try await run(["backup", "--url", url, "--to", file])
                #expect(ending == .exit(0), "\(errors)")
                #expect(output.contains("5 versions"))
                #expect(try await run(["backup", "--url", url, "--to", folder]).0 == .exit(0))
                let again = try await run(["backup", "--url", url, "--to", file])
                #expect(again.0 != .exit(0) && again.2.contains("exists already"))
                let check = try await run(["check", "--url", url])
                #expect(check.0 == .exit(0) && check.1.contains("5 versions"), "\(check)")
                let events = try await server.client.get("/admin/events?order=desc&limit=2")
                #expect(events.text.contains(#""action":"backup""#))
            }
            try await LorryServer.run { server in
                answers = try await server.client.complete(Self.prompt).choice().tokenIds ?? []
            }
            let restored = try await run(["restore", file, "--state-dir", copy.path])
            #expect(restored.0 == .exit(0), "\(restored.2)")
            for state in [copy.path, folder] {
                #expect(try await run(["check", "--state-dir", state]).0 == .exit(0))
                var options = LorryServer.Options()
                options.adapters = nil
                options.further = ["--state-dir", state]
                let process = try LorryProcess(
                    ["adapters", "list", "--json", "--state-dir", state])
                #expect(await process.wait() == .exit(0))
                #expect(process.standardOutput.split(separator: "\n").count == 5)
            }
            var options = LorryServer.Options()
            options.state = copy
            options.adapters = nil
            try await LorryServer.run(options) { server in
                let found = try await server.client.complete(Self.prompt).choice().tokenIds
                #expect(found == answers && !answers.isEmpty)
            }
        }

        @Test func worksOnADirectoryThatNoServerUses() async throws {
            let (state, scratch) = (try ScratchFolder(), try ScratchFolder())
            let file = scratch.url.appending(path: "backup.tar").path
            var options = LorryServer.Options()
            options.state = state
            try await LorryServer.run(options) { _ in
                for command in [["check"], ["backup", "--to", file]] {
                    let refused = try await run(command + ["--state-dir", state.path])
                    #expect(refused.0 == .exit(1))
                    #expect(refused.2.contains("in use by process"), "\(refused.2)")
                }
            }
            let saved = try await run(["backup", "--state-dir", state.path, "--to", file])
            #expect(saved.0 == .exit(0), "\(saved.2)")
            let refused = try await run(["restore", file, "--state-dir", state.path])
            #expect(refused.0 == .exit(1) && refused.2.contains("is not empty"), "\(refused.2)")
            // A byte of some adapter's weights.
            let store = state.url.appending(path: "store")
            let names =
                FileManager.default.enumerator(atPath: store.path)?
                .compactMap { $0 as? String } ?? []
            let weights = try #require(names.first { $0.hasSuffix(".safetensors") })
            var bytes = try Data(contentsOf: store.appending(path: weights))
            bytes[bytes.count - 3] ^= 4
            try bytes.write(to: store.appending(path: weights))
            let check = try await run(["check", "--state-dir", state.path])
            #expect(check.0 == .exit(1))
            #expect(check.1.contains("has other bytes than were stored"), "\(check.1)")
            let second = scratch.url.appending(path: "second.tar").path
            let partial = try await run(["backup", "--state-dir", state.path, "--to", second])
            #expect(partial.0 == .exit(1))
            #expect(partial.2.contains("not in it: version"), "\(partial.2)")
            // A backup that was cut is refused, and leaves nothing.
            let half = try Data(contentsOf: URL(filePath: file)).prefix(500_000)
            try half.write(to: URL(filePath: second))
            let target = scratch.url.appending(path: "target").path
            let cut = try await run(["restore", second, "--state-dir", target])
            #expect(cut.0 == .exit(1) && cut.2.contains("cut short"), "\(cut.2)")
            #expect(!FileManager.default.fileExists(atPath: target))
        }

        @Test func onlyAdminsOfTheDefaultTenantMayReadAll() async throws {
            let scratch = try ScratchFolder()
            let keys = """
                - {key: root-key, tenant: default, roles: [admin]}
                - {key: blue-key, tenant: blue, roles: [admin]}
                - {key: user-key, tenant: default, roles: [inference, metrics]}
                """
            var options = LorryServer.Options()
            options.further = ["--api-keys", try scratch.file("keys.yaml", keys)]
            try await LorryServer.run(options) { server in
                for (key, status) in [
                    (nil, 401), ("blue-key", 403), ("user-key", 403), ("root-key", 200),
                ] {
                    var client = server.client
                    client.key = key
                    for path in ["/admin/backup", "/admin/check"] {
                        let reply = try await client.send(.POST, path)
                        #expect(reply.status == status, "\(key ?? "none") \(path)")
                    }
                }
                var root = server.client
                root.key = "root-key"
                let method = try await root.get("/admin/backup")
                #expect(method.status == 405 && method.header("allow") == "POST")
            }
        }

        /// Uploads and deletes go on; a client that goes away lets go of what its backup held.
        @Test func aBackupUnderLoadIsWhole() async throws {
            let scratch = try ScratchFolder()
            let archives = try ["shakespeare", "robots"].map {
                try AdapterArchive.tar(PackageFiles.talesAdapters.appending(path: $0), alpha: 24)
            }
            try await LorryServer.run { server in
                let churn = Task {
                    while !Task.isCancelled {
                        for archive in archives {
                            _ = try await server.client.put("guest", archive)
                        }
                        _ = try await server.client.delete("guest")
                    }
                }
                let url = "http://127.0.0.1:\(server.client.port)"
                for round in 0..<5 {
                    let file = scratch.url.appending(path: "\(round).tar").path
                    let state = scratch.url.appending(path: "\(round)").path
                    let saved = try await run(["backup", "--url", url, "--to", file])
                    #expect(saved.0 == .exit(0), "\(saved.2)")
                    let restored = try await run(["restore", file, "--state-dir", state])
                    #expect(restored.0 == .exit(0), "\(restored.2)")
                    #expect(try await run(["check", "--state-dir", state]).0 == .exit(0))
                    // Reads the head of another one and goes away.
                    try await server.client.exchange(.POST, "/admin/backup") { head, _ in
                        #expect(head.status == .ok)
                    }
                }
                churn.cancel()
                _ = try? await churn.value
                let check = try await run(["check", "--url", url])
                #expect(check.0 == .exit(0) && !check.1.contains("left over"), "\(check.1)")
            }
        }
    }
}
