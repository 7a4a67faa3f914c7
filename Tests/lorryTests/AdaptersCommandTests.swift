import Foundation
import Testing

extension EndToEndTests {
    /// `lorry adapters` on a running server and on its state directory afterwards.
    struct AdaptersCommandTests {
        /// Runs `lorry adapters`; it has to end well.
        private func adapters(_ arguments: [String]) async throws -> String {
            let result = try await LorryProcess.result(["adapters"] + arguments)
            #expect(result.ending == .exit(0), "\(arguments): \(result.errors)")
            return result.output
        }

        @Test func changesAServersAdapters() async throws {
            let state = try ScratchFolder()
            var options = LorryServer.Options()
            options.state = state
            try await LorryServer.run(options) { server in
                let url = ["--url", "http://127.0.0.1:\(server.client.port)"]
                func run(_ arguments: String...) async throws -> String {
                    try await adapters(arguments + url)
                }
                let shout = PackageFiles.talesAdapters.appending(path: "shout").path
                let pirate = PackageFiles.talesAdapters.appending(path: "pirate").path
                #expect(try await run("add", "guest", shout).contains("Added guest"))
                #expect(try await run("add", "guest", shout).contains("already"))
                #expect(try await run("add", "guest", pirate).contains("Added guest"))
                #expect(try await run("alias", "prod", "guest").hasPrefix("prod is guest, now at"))
                let ask = Ask("guest", .text("Once upon a time"), 4)
                let expected = try await server.client.complete(ask).choice().tokenIds
                let byAlias = Ask("prod", .text("Once upon a time"), 4)
                #expect(try await server.client.complete(byAlias).choice().tokenIds == expected)
                #expect(try await run("rollback", "guest").contains("guest is at version"))
                #expect(try await server.client.complete(byAlias).choice().tokenIds != expected)
                let versions = try await run("versions", "guest").split(separator: "\n")
                #expect(versions.count == 3)
                #expect(versions[1].hasSuffix("current"))
                let second = try #require(versions[2].split(separator: " ").first)
                #expect(
                    try await run("alias", "prod", "guest@\(second)").contains(
                        "fixed at version \(second)"))
                #expect(try await server.client.complete(byAlias).choice().tokenIds == expected)
                #expect(try await run("aliases").contains("\(second), fixed"))
                #expect(try await run("show", "guest").contains("aliases  prod"))
                #expect(try await run("disable", "guest") == "Disabled guest\n")
                #expect(try await run("list", "--state", "disabled", "--json").contains("guest"))
                #expect(try await server.client.post("/v1/completions", ask).status == 403)
                #expect(try await run("enable", "guest") == "Enabled guest\n")
                #expect(try await run("pin", "guest") == "Pinned guest\n")
            }
            let offline = ["--state-dir", state.path]
            #expect(try await adapters(["list", "--prefix", "gue"] + offline).contains("pinned"))
            let refused = try await LorryProcess.result(["adapters", "remove", "guest"] + offline)
            #expect(refused.ending != .exit(0))
            #expect(refused.errors.contains("'prod'"))
            #expect(
                try await adapters(["unalias", "prod"] + offline) == "Removed the alias prod\n")
            #expect(try await adapters(["remove", "guest"] + offline) == "Removed guest\n")
            #expect(try await !adapters(["list"] + offline).contains("guest"))
        }
    }
}
