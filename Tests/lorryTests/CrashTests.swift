import Foundation
import Testing

extension EndToEndTests {
    struct CrashTests {
        private static let adapters = PackageFiles.talesAdapters
        private static let environment = ProcessInfo.processInfo.environment

        /// More rounds where `LORRY_CRASH_ROUNDS` says so.
        private static let roundCount = environment["LORRY_CRASH_ROUNDS"].flatMap(Int.init) ?? 15

        /// Uploads and deletes until the server is gone; returns the versions that were confirmed.
        private func churn(_ archives: [[UInt8]], _ client: Client) async -> Set<String> {
            var versions: Set<String> = []
            do {
                while true {
                    for archive in archives {
                        let record: AdapterAnswer = try await client.put("guest", archive).decoded()
                        versions.insert(record.version)
                    }
                    _ = try await client.delete("guest")
                }
            } catch {
                return versions
            }
        }

        /// After a restart the guest is one of its versions, whole, or absent.
        private func checkGuest(
            _ client: Client, _ answers: [String: [Int]], wasServed: inout Int
        ) async throws {
            let reply = try await client.get("/admin/adapters/guest")
            let ask = Ask("guest", .text("Once upon a time"), 8)
            guard reply.status == 200 else {
                #expect(reply.status == 404)
                #expect(try await client.post("/v1/completions", ask).status == 404)
                return
            }
            wasServed += 1
            let record: AdapterAnswer = try reply.decoded()
            let expected = try #require(answers[record.version], "an unknown version")
            #expect(try await client.complete(ask).choice().tokenIds == expected)
        }

        @Test func aKillLeavesAnAdapterWholeOrAbsent() async throws {
            var random = SeededGenerator(seed: 9)
            let state = try ScratchFolder()
            var options = LorryServer.Options()
            options.state = state
            let archives = try ["shakespeare", "shout"].map {
                try AdapterArchive.tar(Self.adapters.appending(path: $0), alpha: 24)
            }
            var server = try await LorryServer.start(options, state: state)
            let pirate = Ask("pirate", .text("Once upon a time"), 8)
            let pirateIDs = try await server.client.complete(pirate).choice().tokenIds
            var answers: [String: [Int]] = [:]
            for archive in archives {
                let record: AdapterAnswer =
                    try await server.client.put("guest", archive).decoded()
                let ask = Ask("guest", .text("Once upon a time"), 8)
                answers[record.version] = try await server.client.complete(ask).choice().tokenIds
            }
            #expect(answers.count == 2)
            var wasServed = 0
            for _ in 0..<Self.roundCount {
                let client = server.client
                async let confirmed = churn(archives, client)
                try await Task.sleep(for: .microseconds(Int.random(in: 0...60_000, using: &random)))
                await server.kill()
                #expect(await confirmed.isSubset(of: answers.keys))
                server = try await LorryServer.start(options, state: state)
                try await checkGuest(server.client, answers, wasServed: &wasServed)
                #expect(
                    try await server.client.complete(pirate).choice().tokenIds == pirateIDs)
            }
            server.process.send(SIGTERM)
            #expect(await server.process.wait() == .exit(0))
            print("\(Self.roundCount) kills, the adapter was there after \(wasServed) of them")
        }
    }
}
