import Foundation
import GRDB
import Logging
import LorryRegistry
import NIOHTTP1
import Testing

extension EndToEndTests {
    /// Cuts the power, and kills the process, at hundreds of moments of one run: `DiskLog` records
    /// what the server does to its state directory, `DiskModel` says what a disk keeps of it.
    struct PowerLossTests {
        /// What the log must hold of a request: `begin 7 name`, then `done 7 name state`.
        private struct Ledger {
            private var states: [String: String] = [:]
            private var open: [String: String] = [:]
            /// State that each request led to.
            private let outcomes: [String: String]
            private(set) var doneCount = 0

            init(_ records: [DiskLog.Record]) {
                var outcomes: [String: String] = [:]
                for record in records where record.kind == .mark {
                    let words = record.text.split(separator: " ", maxSplits: 3).map(String.init)
                    if words[0] == "done" { outcomes[words[1]] = words[3] }
                }
                self.outcomes = outcomes
            }

            mutating func apply(_ record: DiskLog.Record) {
                guard record.kind == .mark else { return }
                let words = record.text.split(separator: " ", maxSplits: 3).map(String.init)
                if words[0] == "begin" {
                    open[words[2]] = words[1]
                } else {
                    open[words[2]] = nil
                    states[words[2]] = words[3]
                    doneCount += 1
                }
            }

            /// What a name may be now: as it was acknowledged last, or as a request that is under
            /// way would leave it.
            func allowed(_ name: String) -> Set<String> {
                let next = open[name].flatMap { outcomes[$0] }
                return Set([states[name] ?? "-", next].compactMap { $0 })
            }
        }

        private struct Record: Decodable {
            let version: String
            let pinned: Bool
            var state: String { "\(version) \(pinned)" }
        }

        /// One name's client: a request at a time, each with its marks.
        private struct Worker: Sendable {
            let name: String
            let client: Client
            let log: DiskLog

            func change(_ number: Int, _ send: (Client) async throws -> Reply) async throws {
                let id = "\(name)-\(number)"
                try log.mark("begin \(id) \(name)")
                let reply = try await send(client)
                guard (200..<300).contains(reply.status) else {
                    throw TestFailure("\(id): \(reply.status) \(reply.text)")
                }
                let record: Record = try reply.decoded()
                try log.mark("done \(id) \(name) \(record.state)")
            }

            func remove(_ number: Int) async throws {
                let id = "\(name)-\(number)"
                try log.mark("begin \(id) \(name)")
                #expect(try await client.delete(name).status == 200)
                try log.mark("done \(id) \(name) -")
            }

            func act(_ action: String, _ number: Int) async throws {
                try await change(number) {
                    try await $0.send(.POST, "/admin/adapters/\(name)/\(action)")
                }
            }

            func run(_ archives: [[UInt8]], rounds: Int) async throws {
                for round in 0..<rounds {
                    let (first, second) = (archives[round % 4], archives[(round + 1) % 4])
                    try await change(6 * round) { try await $0.put(name, first) }
                    try await change(6 * round + 1) { try await $0.put(name, second) }
                    try await act("pin", 6 * round + 2)
                    try await act("rollback", 6 * round + 3)
                    try await act("unpin", 6 * round + 4)
                    if round % 2 == 0 { try await remove(6 * round + 5) }
                }
            }

            func merge(rounds: Int) async throws {
                for round in 0..<rounds {
                    try await change(2 * round) {
                        let object =
                            #"{"adapters": [{"name": "pirate"}, {"name": "robots"}], "#
                            + #""combination_type": "cat"}"#
                        return try await $0.send(
                            .POST, "/admin/adapters/\(name)/merge",
                            headers: [("content-type", "application/json")],
                            body: Array(object.utf8))
                    }
                    try await remove(2 * round + 1)
                }
            }
        }

        /// Four small adapters of the example's shape.
        private func archives(in scratch: ScratchFolder) async throws -> [[UInt8]] {
            let made = try await LorryProcess.result([
                "synth", "adapters", "--model", PackageFiles.tales.path, "--count", "4", "--rank",
                "1", "--targets", "q_proj", "--out", scratch.path,
            ])
            guard made.ending == .exit(0) else { throw TestFailure(made.errors) }
            return try (0..<4).map {
                try AdapterArchive.tar(scratch.url.appending(path: "adapter-000\($0)"))
            }
        }

        private func expectLogged(_ model: DiskModel, _ root: URL) throws {
            #expect(model.unknown.isEmpty)
            #expect(model.mapped.allSatisfy { $0.hasSuffix("-shm") })
            let real = try DiskModel(root: root).visible
            let known = model.visible
            for path in Set(real.keys).union(known.keys) where !path.hasSuffix("-shm") {
                #expect(real[path] == known[path], "the log does not tell all of \(path)")
            }
        }

        /// Moments and what becomes of the disk then: each acknowledgement with nothing kept that
        /// was not synced, and others with as much or as little as chance keeps.
        private func cuts(
            _ records: [DiskLog.Record], _ count: Int, _ random: inout SeededGenerator
        ) -> [Int: [DiskModel.Fate]] {
            var cuts: [Int: [DiskModel.Fate]] = [:]
            let marks = records.indices.filter {
                records[$0].kind == .mark && records[$0].text.hasPrefix("done")
            }
            for index in marks.shuffled(using: &random).prefix(count) {
                cuts[index + 1, default: []].append(.onlySynced)
            }
            for _ in 0..<count {
                let shares = [0.1, 0.5, 0.9]
                let place = Int.random(in: 0...records.count, using: &random)
                cuts[place, default: []].append(
                    .torn(
                        share: shares[Int.random(in: 0..<3, using: &random)],
                        blockByteCount: Bool.random(using: &random) ? 512 : 4096))
            }
            for _ in 0..<count {
                cuts[Int.random(in: 0...records.count, using: &random), default: []].append(.killed)
            }
            return cuts
        }

        /// Opens the folder as the next start would.
        private func verify(
            _ folder: URL, _ names: [String], _ ledger: Ledger, _ comment: Comment
        ) async throws {
            let registry: AdapterRegistry
            do {
                registry = try openRegistry(folder)
            } catch {
                Issue.record("\(comment): \(error)")
                return
            }
            for name in names {
                let found = (try? registry.record(name: name)).map {
                    "\($0.version) \($0.pinned)"
                }
                let allowed = ledger.allowed(name)
                #expect(allowed.contains(found ?? "-"), "\(comment): \(name) of \(allowed)")
            }
            let report = try await registry.report(actor: "test")
            #expect(report.problems.isEmpty && report.leftovers.isEmpty, "\(comment): \(report)")
            let staging = folder.appending(path: "staging").path
            #expect(try FileManager.default.contentsOfDirectory(atPath: staging).isEmpty, comment)
            var query = EventQuery()
            query.limit = .max
            #expect(try await registry.events(query).count >= ledger.doneCount, comment)
            await registry.close()
        }

        private func openRegistry(_ folder: URL) throws -> AdapterRegistry {
            var log = Logger(label: "test")
            log.logLevel = .critical
            return try AdapterRegistry(stateDirectory: folder, log: log) { _ in
                throw TestFailure("nothing is uploaded")
            }
        }

        /// Replays the log and looks at every cut.
        private func replay(
            _ log: DiskLog, from base: DiskModel, _ names: [String], cutsOfAKind: Int, seed: UInt64
        ) async throws -> (cuts: Int, records: Int) {
            let records = try log.records()
            var (model, ledger, random) = (base, Ledger(records), SeededGenerator(seed: seed))
            let cuts = cuts(records, cutsOfAKind, &random)
            let scratch = try ScratchFolder()
            var cutCount = 0
            for index in 0...records.count {
                for fate in cuts[index] ?? [] {
                    let folder = scratch.url.appending(path: "\(cutCount)")
                    try model.write(to: folder, after: fate, using: &random)
                    try await verify(
                        folder, names, ledger, "seed \(seed), \(fate) after \(index) changes")
                    try FileManager.default.removeItem(at: folder)
                    cutCount += 1
                }
                guard index < records.count else { break }
                try model.apply(records[index])
                ledger.apply(records[index])
            }
            try expectLogged(model, log.root)
            return (cutCount, records.count)
        }

        @Test(arguments: [UInt64(1)])
        func nothingAcknowledgedIsLost(seed: UInt64) async throws {
            let (state, scratch) = (try ScratchFolder(), try ScratchFolder())
            let archives = try await archives(in: scratch)
            let log = try DiskLog(root: state.url)
            let base = try DiskModel(root: state.url)
            var options = LorryServer.Options()
            options.state = state
            options.environment = log.environment
            options.further = ["--weight-cache", "off"]
            let names = ["one", "two", "three"]
            try await LorryServer.run(options) { server in
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for (index, name) in names.enumerated() {
                        let own = Array(archives[index...] + archives[..<index])
                        let worker = Worker(name: name, client: server.client, log: log)
                        group.addTask { try await worker.run(own, rounds: 10) }
                    }
                    let merger = Worker(name: "both", client: server.client, log: log)
                    group.addTask { try await merger.merge(rounds: 3) }
                    group.addTask {
                        for _ in 0..<3 {
                            let reply = try await server.client.send(.POST, "/admin/backup")
                            #expect(reply.status == 200)
                        }
                    }
                    try await group.waitForAll()
                }
            }
            let figures = try await replay(
                log, from: base, names + ["both"], cutsOfAKind: 150, seed: seed)
            print("\(figures.cuts) cuts of \(figures.records) changes to the disk")
        }

        /// From the first release's database to the present one.
        @Test func aMigrationIsWholeOrNotBegun() async throws {
            let state = try ScratchFolder()
            let fixture = PackageFiles.fixtures.appending(path: "state-v1")
            try FileManager.default.copyItem(
                at: fixture.appending(path: "store"), to: state.url.appending(path: "store"))
            let script = try String(
                contentsOf: fixture.appending(path: "registry.sql"), encoding: .utf8)
            let queue = try DatabaseQueue(path: state.url.appending(path: "registry.sqlite").path)
            try await queue.writeWithoutTransaction {
                try $0.execute(sql: "PRAGMA journal_mode = WAL;" + script)
            }
            try queue.close()
            let log = try DiskLog(root: state.url)
            var model = try DiskModel(root: state.url)
            let listed = try await LorryProcess.result(
                ["adapters", "list", "--state-dir", state.path], environment: log.environment)
            #expect(listed.ending == .exit(0), "\(listed.errors)")
            let records = try log.records()
            #expect(records.contains { $0.kind == .write && !$0.data.isEmpty })
            var random = SeededGenerator(seed: 3)
            let scratch = try ScratchFolder()
            for index in 0...records.count {
                let torn = DiskModel.Fate.torn(share: 0.5, blockByteCount: 512)
                for (number, fate) in [.killed, .onlySynced, torn, torn].enumerated() {
                    let folder = scratch.url.appending(path: "\(index)-\(number)")
                    try model.write(to: folder, after: fate, using: &random)
                    try await expectFirstRelease(folder, "\(fate) after \(index) changes")
                }
                if index < records.count { try model.apply(records[index]) }
            }
            try expectLogged(model, state.url)
            print("\(4 * (records.count + 1)) cuts of a migration")
        }

        private func expectFirstRelease(_ folder: URL, _ comment: Comment) async throws {
            let registry: AdapterRegistry
            do {
                registry = try openRegistry(folder)
            } catch {
                Issue.record("\(comment): \(error)")
                return
            }
            #expect(registry.list().adapters.map(\.name) == ["a", "b", "c"], comment)
            #expect(try registry.versions(name: "a").count == 2, comment)
            #expect(try registry.record(name: "b").state == .disabled, comment)
            #expect(try await registry.events(EventQuery()).count == 6, comment)
            #expect(try await registry.report(actor: "test").problems.isEmpty, comment)
            await registry.close()
        }
    }
}
