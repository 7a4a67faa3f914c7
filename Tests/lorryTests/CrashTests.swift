import Foundation
import NIOHTTP1
import Testing

extension EndToEndTests {
    /// Kills the server while several clients upload, roll back and delete.
    struct CrashTests {
        private static let adapters = PackageFiles.talesAdapters
        private static let environment = ProcessInfo.processInfo.environment

        /// More rounds where `LORRY_CRASH_ROUNDS` says so.
        private static let roundCount = environment["LORRY_CRASH_ROUNDS"].flatMap(Int.init) ?? 15

        private struct Archive: Sendable {
            let bytes: [UInt8]
            let version: String
        }

        /// What is known of a name when its server has gone.
        private struct Knowledge: Sendable {
            let name: String
            /// The version of the last change that was acknowledged; nil: removed, or never there.
            var acknowledged: String?
            /// What a change that was not answered would have led to.
            var unanswered: String??
            var changeCount = 0

            mutating func change(
                to version: String?, _ send: () async throws -> Reply
            ) async throws {
                unanswered = .some(version)
                let reply = try await send()
                // Only an answer that came whole is an acknowledgement.
                guard (200..<300).contains(reply.status) else {
                    throw TestFailure("\(name): \(reply.status) \(reply.text)")
                }
                unanswered = nil
                acknowledged = version
                changeCount += 1
            }

            func allows(_ version: String?) -> Bool {
                version == acknowledged || unanswered == .some(version)
            }
        }

        /// Changes one name until the server is gone.
        private func churn(
            _ start: Knowledge, _ archives: [Archive], _ client: Client
        ) async -> Knowledge {
            var known = start
            let name = known.name
            do {
                while true {
                    for archive in archives {
                        try await known.change(to: archive.version) {
                            try await client.put(name, archive.bytes)
                        }
                    }
                    try await known.change(to: archives[archives.count - 2].version) {
                        try await client.send(.POST, "/admin/adapters/\(name)/rollback")
                    }
                    try await known.change(to: nil) { try await client.delete(name) }
                }
            } catch {
                // The end of a connection names its route, a refusal the adapter.
                if "\(error)".hasPrefix(name) { Issue.record("\(error)") }
            }
            return known
        }

        private struct Tally {
            var changes = 0
            var lost = 0
            var half = 0
            var served = 0
        }

        /// Each name has the version that was acknowledged last, or that of the change under way,
        /// and answers as that version does.
        private func check(
            _ known: Knowledge, _ client: Client, _ answers: [String: [Int]], _ tally: inout Tally
        ) async throws -> Knowledge {
            let reply = try await client.get("/admin/adapters/\(known.name)")
            let ask = Ask(known.name, .text("Once upon a time"), 8)
            var version: String?
            if reply.status == 200 {
                let record: AdapterAnswer = try reply.decoded()
                version = record.version
                let answer = try await client.post("/v1/completions", ask)
                let tokens = try? answer.decoded(as: Completion.self).choice().tokenIds
                let isWhole =
                    answer.status == 200 && tokens == answers[record.version]
                    && record.state != "damaged"
                if !isWhole { tally.half += 1 }
                #expect(isWhole, "\(known.name) is not whole: \(answer.text)")
                tally.served += 1
            } else {
                #expect(reply.status == 404)
                #expect(try await client.post("/v1/completions", ask).status == 404)
            }
            if !known.allows(version) { tally.lost += 1 }
            #expect(known.allows(version), "\(known) but found \(version ?? "nothing")")
            tally.changes += known.changeCount
            return Knowledge(name: known.name, acknowledged: version)
        }

        /// Three versions each for three names, with what they answer.
        private func prepare(
            _ client: Client
        ) async throws -> (archives: [[Archive]], answers: [String: [Int]]) {
            var answers: [String: [Int]] = [:]
            var archives: [[Archive]] = []
            for name in ["shakespeare", "shout", "robots"] {
                var own: [Archive] = []
                for alpha in [8, 24, 40] {
                    let bytes = try AdapterArchive.tar(
                        Self.adapters.appending(path: name), alpha: alpha)
                    let record: AdapterAnswer = try await client.put("guest", bytes).decoded()
                    let ask = Ask("guest", .text("Once upon a time"), 8)
                    answers[record.version] = try await client.complete(ask).choice().tokenIds
                    own.append(Archive(bytes: bytes, version: record.version))
                }
                archives.append(own)
            }
            #expect(answers.count == 9)
            #expect(try await client.delete("guest").status == 200)
            return (archives, answers)
        }

        @Test func aKillLosesNothingThatWasAcknowledged() async throws {
            var random = SeededGenerator(seed: 9)
            let state = try ScratchFolder()
            var options = LorryServer.Options()
            options.state = state
            var server = try await LorryServer.start(options, state: state)
            let (archives, answers) = try await prepare(server.client)
            let pirate = Ask("pirate", .text("Once upon a time"), 8)
            let pirateIDs = try await server.client.complete(pirate).choice().tokenIds
            var known = archives.indices.map { Knowledge(name: "guest-\($0)") }
            var tally = Tally()
            for _ in 0..<Self.roundCount {
                let client = server.client
                let churning = zip(known, archives).map { known, archives in
                    Task { await churn(known, archives, client) }
                }
                try await Task.sleep(
                    for: .microseconds(Int.random(in: 0...200_000, using: &random)))
                await server.kill()
                for index in churning.indices { known[index] = await churning[index].value }
                server = try await LorryServer.start(options, state: state)
                for index in known.indices {
                    known[index] = try await check(
                        known[index], server.client, answers, &tally)
                }
                #expect(
                    try await server.client.complete(pirate).choice().tokenIds == pirateIDs)
            }
            let report = try await server.client.send(.POST, "/admin/check")
            #expect(report.text.contains(#""problems":[]"#), "\(report.text)")
            #expect(report.text.contains(#""leftovers":[]"#), "\(report.text)")
            server.process.send(SIGTERM)
            #expect(await server.process.wait() == .exit(0))
            #expect(tally.lost == 0 && tally.half == 0)
            print(
                "\(Self.roundCount) kills, \(tally.changes) acknowledged changes: \(tally.lost) "
                    + "lost, \(tally.half) half there; adapters found whole: \(tally.served)")
        }
    }
}
