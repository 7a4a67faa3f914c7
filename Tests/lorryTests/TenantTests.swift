import Foundation
import Testing

extension EndToEndTests {
    struct TenantTests {
        private static let userKey = "{key: user-key-1, id: user, tenant: acme, roles: [inference]}"
        private static let adminKey =
            "{key: admin-key, id: ops, tenant: default, roles: [admin, metrics]}"

        private struct UsagePage: Decodable {
            struct Row: Decodable {
                let tenant: String
                let key: String
                let adapter: String?
                let requests: Int
                let completionTokens: Int
            }
            let usage: [Row]
        }

        private struct EventPage: Decodable {
            struct Event: Decodable {
                let actor: String
                let action: String
                let detail: String
            }
            let events: [Event]
        }

        private func options(_ file: String, _ further: [String] = []) -> LorryServer.Options {
            var options = LorryServer.Options()
            options.further = ["--api-keys", file] + further
            return options
        }

        private func client(_ server: LorryServer, _ key: String?) -> Client {
            var client = server.client
            client.key = key
            return client
        }

        /// Waits for a line of the server's log.
        private func line(_ server: LorryServer, _ words: String) async throws -> String {
            while server.process.isRunning {
                let lines = server.process.standardError.split(separator: "\n")
                if let line = lines.first(where: { $0.contains(words) }) { return String(line) }
                try await Task.sleep(for: .milliseconds(10))
            }
            throw TestFailure("the server ended: \(server.process.standardError)")
        }

        @Test func keysAreRotatedWhileRequestsRun() async throws {
            let scratch = try ScratchFolder()
            let path = try scratch.file("keys.yaml", "- \(Self.userKey)\n- \(Self.adminKey)\n")
            try await LorryServer.run(options(path)) { server in
                let (old, new) = (client(server, "user-key-1"), client(server, "user-key-2"))
                let ask = Ask("pirate", .text("Hello"), 2)
                #expect(try await old.post("/v1/completions", ask).status == 200)
                #expect(try await new.post("/v1/completions", ask).status == 401)

                var long = Ask("pirate", .text("Once upon a time"), 200)
                long.ignoreEos = true
                let running = Task { try await old.streamed(long) }
                let next = try scratch.file(
                    "next.yaml",
                    "- \(Self.userKey.replacing("key-1", with: "key-2"))\n- \(Self.adminKey)\n")
                // By a rename, as configuration systems replace files.
                try #require(rename(next, path) == 0)
                _ = try await line(server, "API keys read again")
                #expect(try await old.post("/v1/completions", ask).status == 401)
                #expect(try await new.post("/v1/completions", ask).status == 200)
                _ = try await running.value

                try Data("keys: 5".utf8).write(to: URL(filePath: path))
                server.process.send(SIGHUP)
                let refusal = try await line(server, "API keys not read again")
                #expect(refusal.contains("must be a list of keys"))
                #expect(try await new.post("/v1/completions", ask).status == 200)

                let admin = client(server, "admin-key")
                let page = try await admin.metrics()
                #expect(page.value("lorry_key_reloads_total", ["outcome": "succeeded"]) == 1)
                #expect(page.value("lorry_key_reloads_total", ["outcome": "failed"]) == 1)
                let events: EventPage = try await admin.get("/admin/events?order=desc").decoded()
                #expect(events.events.first?.action == "keys")
                #expect(events.events.first?.detail == "changed: user")
                // Whoever is refused is in the log, not in the audit log.
                #expect(try await new.get("/admin/adapters").status == 403)
                let refused = try await line(server, "administration refused")
                #expect(refused.contains("acme/user"))
            }
        }

        @Test func usageSurvivesAKill() async throws {
            let scratch = try ScratchFolder()
            let state = try ScratchFolder()
            let path = try scratch.file("keys.yaml", "- \(Self.userKey)\n- \(Self.adminKey)\n")
            func usage(_ server: LorryServer) async throws -> UsagePage.Row? {
                let page: UsagePage = try await client(server, "admin-key").get(
                    "/admin/usage?group=tenant,key,adapter"
                ).decoded()
                #expect(page.usage.count <= 1)
                return page.usage.first
            }
            var options = options(path)
            options.state = state
            let first = try await LorryServer.start(options, state: state)
            let ask = Ask("pirate", .text("Hello"), 3)
            for _ in 0..<4 { _ = try await client(first, "user-key-1").complete(ask) }
            // The stated few seconds, in which it is written.
            try await Task.sleep(for: .seconds(6))
            await first.kill()
            let second = try await LorryServer.start(options, state: state)
            let row = try #require(try await usage(second))
            #expect(row.requests == 4)
            #expect(row.tenant == "acme" && row.key == "user" && row.adapter == "pirate")
            #expect(row.completionTokens == 12)
            // What has just been used is written at the end.
            _ = try await client(second, "user-key-1").complete(ask)
            second.process.send(SIGTERM)
            #expect(await second.process.wait() == .exit(0))
            try await LorryServer.run(options) { third in
                let row = try await usage(third)
                #expect(row?.requests == 5)
            }
        }

        @Test func administrationOnAnAddressOfItsOwn() async throws {
            try await LorryServer.run(
                {
                    var options = LorryServer.Options()
                    options.further = ["--admin-port", "0"]
                    return options
                }()
            ) { server in
                let line = try await line(server, "administration is ready")
                let port = try #require(line.firstMatch(of: #/127\.0\.0\.1:(\d+)/#)).output.1
                let admin = Client(port: try #require(Int(port)))
                #expect(admin.port != server.client.port)
                for path in ["/admin/adapters", "/admin/events", "/metrics"] {
                    #expect(try await server.client.get(path).status == 404)
                    #expect(try await admin.get(path).status == 200)
                }
                for path in ["/v1/models", "/props"] {
                    #expect(try await server.client.get(path).status == 200)
                    #expect(try await admin.get(path).status == 404)
                }
                for client in [server.client, admin] {
                    #expect(try await client.get("/health/ready").status == 200)
                }
                // The ready line stays the only one.
                #expect(server.process.standardOutput.split(separator: "\n").count == 1)
            }
        }

        @Test func aKeyThatTheCommandMakes() async throws {
            let made = try await LorryProcess.result([
                "keys", "new", "--tenant", "it's", "--role", "inference", "--id", "new-one",
            ])
            #expect(made.ending == .exit(0))
            let lines = made.output.split(separator: "\n")
            let key = try #require(lines.first { $0.hasPrefix("# lorry_") }).dropFirst(2)
            #expect(made.output.components(separatedBy: key).count == 2)
            let scratch = try ScratchFolder()
            let path = try scratch.file("keys.yaml", made.output)
            try await LorryServer.run(options(path)) { server in
                let models = try await client(server, String(key)).get("/v1/models")
                #expect(models.status == 200)
            }
            let bad = try await LorryProcess.result(["keys", "new", "--role", "king"])
            #expect(bad.ending != .exit(0))
            #expect(bad.errors.contains("unknown role 'king'"))
            #expect(try await LorryProcess.result(["keys", "hash"]).ending != .exit(0))
        }
    }
}
