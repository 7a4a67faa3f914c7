import Foundation
import GRDB
import LorryRegistry
import Testing

/// Databases that are altered, cut, exchanged, old or gone.
struct DatabaseDamageTests {
    let scratch: ScratchFolder
    let state: URL

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
    }

    private func database(_ state: URL) -> URL {
        state.appendingPathComponent("registry.sqlite")
    }

    /// `a` at version two after one, `b` pinned, and forty more of other content.
    private func seed() async throws {
        let registry = try openRegistry(state)
        try await registry.add("a")
        try await registry.add("a", adapterFiles("two"))
        try await registry.add("b")
        try await registry.pin(name: "b", actor: "x")
        for index in 0..<40 { try await registry.add("n\(index)", adapterFiles("\(index)")) }
        await registry.close()
    }

    private var expected: [String: String] {
        var weights = ["a": "weights two", "b": "weights one"]
        for index in 0..<40 { weights["n\(index)"] = "weights \(index)" }
        return weights
    }

    private func expectRefused(_ word: String, _ comment: Comment? = nil) async {
        let before = storedVersions(state)
        let refused = await error { _ = try openRegistry(state) }
        #expect(refused?.kind == .damaged, comment)
        #expect(refused?.message.contains(word) == true, "\(refused?.message ?? "opened")")
        #expect(refused?.message.contains("backup") == true)
        #expect(storedVersions(state) == before, comment)
    }

    /// Bytes are altered all over the file, alone and in runs; what opens all the same serves
    /// nothing but what was stored under a name, and loses nothing that it names.
    @Test(arguments: [1, 64])
    func neverServesOtherContent(run: Int) async throws {
        try await seed()
        let original = try Data(contentsOf: database(state))
        let versions = storedVersions(state)
        let expected = expected
        var refusedCount = 0
        var openedCount = 0
        for start in stride(from: 0, to: original.count - run, by: 509) {
            var altered = original
            // Scattered, and the same in every run.
            let offset = min(start + start * 7919 % 509, original.count - run)
            for index in offset..<offset + run {
                altered[index] ^= UInt8(1 + (start * 31 + index * 17) % 255)
            }
            try altered.write(to: database(state))
            let comment: Comment = "\(run) bytes at \(offset)"
            do {
                let registry = try openRegistry(state)
                openedCount += 1
                for record in registry.list().adapters where record.tenant == "default" {
                    guard let weights = try? registry.weights(record.name) else { continue }
                    // A name that was altered itself is another name; its content is its version's.
                    let isKnown = expected[record.name].map { $0 == weights }
                    #expect(isKnown ?? expected.values.contains(weights), comment)
                }
                _ = try? await registry.events(EventQuery())
                await registry.close()
                #expect(storedVersions(state).isSuperset(of: versions), comment)
            } catch let error as RegistryError {
                refusedCount += 1
                let kinds: [RegistryError.Kind] = [.damaged, .unsupported]
                #expect(kinds.contains(error.kind), "\(comment): \(error.message)")
                #expect(error.message.contains(state.path), comment)
                #expect(storedVersions(state) == versions, comment)
            }
            for suffix in ["-wal", "-shm"] {
                try? FileManager.default.removeItem(atPath: database(state).path + suffix)
            }
        }
        #expect(refusedCount > 10 && openedCount > 0)
    }

    @Test func refusesADatabaseThatWasCut() async throws {
        try await seed()
        let original = try Data(contentsOf: database(state))
        for share in [0.1, 0.5, 0.9] {
            let count = Int(Double(original.count) * share)
            try original.prefix(count).write(to: database(state))
            await expectRefused(database(state).path, "cut to \(count)")
        }
        try Data().write(to: database(state))
        await expectRefused("empty")
        // A whole page is cut off the end.
        try original.dropLast(4096).write(to: database(state))
        await expectRefused(database(state).path)
    }

    @Test func refusesALogWithoutItsHeader() async throws {
        let registry = try openRegistry(state)
        try await registry.add("a")
        let copy = scratch.sub("copy")
        try FileManager.default.copyItem(at: state, to: copy)
        await registry.close()
        let log = URL(fileURLWithPath: database(copy).path + "-wal")
        let bytes = try [UInt8](Data(contentsOf: log))
        try #require(bytes.count > 4096)
        for offset in [0, 5, 10, 20, 30] {
            var altered = bytes
            altered[offset] ^= 0xFF
            try Data(altered).write(to: log)
            let refused = await error { _ = try openRegistry(copy) }
            #expect(refused?.kind == .damaged)
            #expect(refused?.message.contains(log.path) == true)
        }
        try Data(bytes).write(to: log)
        let opened = try openRegistry(copy)
        #expect(try opened.weights("a") == "weights one")
    }

    /// As a kill between the migrator's own commit and the first migration's leaves it.
    @Test func goesOnWithADatabaseThatWasJustMade() async throws {
        try FileManager.default.createDirectory(at: state, withIntermediateDirectories: true)
        let queue = try DatabaseQueue(path: database(state).path)
        let table = "CREATE TABLE grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY)"
        try await queue.write { try $0.execute(sql: table) }
        try queue.close()
        let new = try Data(contentsOf: database(state))
        let registry = try openRegistry(state)
        try await registry.add("a")
        await registry.close()
        // In place of one that names adapters it is not taken.
        try new.write(to: database(state))
        await expectRefused("although there are adapters")
    }

    @Test func refusesTablesThatAreGone() async throws {
        try await seed()
        let queue = try DatabaseQueue(path: database(state).path)
        try await queue.write { try $0.execute(sql: "DROP TABLE history") }
        try queue.close()
        await expectRefused("history")
    }

    /// Rows that SQLite takes for sound and no Lorry can have written.
    @Test(arguments: [
        "UPDATE names SET version = (SELECT version FROM history WHERE name = 'n1') WHERE name = 'a'",
        "UPDATE versions SET files = '[]x'", "UPDATE versions SET created = 9e18",
        "UPDATE versions SET byteCount = -1",
        "UPDATE versions SET files = replace(files, 'adapter_config.json', '../../../etc/passwd')",
        "UPDATE history SET created = -5", "DELETE FROM history WHERE name = 'b'",
    ])
    func refusesRowsThatCannotBe(statement: String) async throws {
        try await seed()
        let queue = try DatabaseQueue(path: database(state).path)
        try await queue.write { try $0.execute(sql: statement) }
        try queue.close()
        await expectRefused(database(state).path)
    }

    @Test func refusesRowsThatReferToNone() async throws {
        try await seed()
        var configuration = Configuration()
        configuration.foreignKeysEnabled = false
        let queue = try DatabaseQueue(path: database(state).path, configuration: configuration)
        try await queue.write { try $0.execute(sql: "DELETE FROM versions WHERE rowid = 5") }
        try queue.close()
        await expectRefused("refers to none of versions")
    }

    /// An old database beside a newer store is told by the versions that it misses.
    @Test func keepsFoldersWhereOthersAreMissing() async throws {
        var registry = try openRegistry(state)
        let one = try await registry.add("a").record.version
        await registry.close()
        let old = try Data(contentsOf: database(state))
        registry = try openRegistry(state)
        let two = try await registry.add("b", adapterFiles("two")).record.version
        try await registry.remove(name: "a", actor: "x")
        await registry.close()
        try old.write(to: database(state))
        registry = try openRegistry(state)
        #expect(try registry.record(name: "a").state == .damaged)
        #expect(registry.list().adapters.map(\.version) == [one])
        #expect(storedVersions(state) == [two.digest])
        await registry.close()
    }

    @Test func saysWhatIsMissingWhereTheStoreIsGone() async throws {
        try await seed()
        try FileManager.default.removeItem(at: state.appendingPathComponent("store"))
        let registry = try openRegistry(state)
        #expect(registry.list().adapters.allSatisfy { $0.state == .damaged })
        let refused = await error { _ = try registry.acquire("a") }
        #expect(refused?.kind == .damaged)
        #expect(refused?.message.contains("upload it again") == true)
        try await registry.add("a", adapterFiles("two"))
        #expect(try registry.weights("a") == "weights two")
    }

    @Test func bringsTheFirstReleaseUpToDate() async throws {
        try FirstRelease.write(to: state)
        let registry = try openRegistry(state)
        #expect(try registry.weights("a") == "weights two")
        #expect(try registry.weights("c", tenant: "blue") == "weights two")
        #expect(try registry.record(name: "b").pinned)
        #expect(try registry.record(name: "b").state == .disabled)
        #expect(try registry.versions(name: "a").count == 2)
        #expect(try await registry.events(EventQuery()).count == 6)
        #expect(try await registry.report(actor: "x").problems.isEmpty)
        try await registry.rollback(name: "a", actor: "x")
        #expect(try registry.weights("a") == "weights one")
        await registry.close()
        #expect(try openRegistry(state).list().adapters.count == 3)
    }

    @Test func opensWhatAKilledProcessLocked() async throws {
        try await seed()
        try Data("4194304".utf8).write(to: state.appendingPathComponent("lock"))
        #expect(try openRegistry(state).list().adapters.count == 42)
    }

    /// A copy of the folder, file by file, while it changes: never half there in silence.
    @Test func aCopyMadeWhileLiveIsRightOrRefused() async throws {
        let registry = try openRegistry(state)
        let isOver = Flag()
        async let load: Void = {
            var round = 0
            while !isOver.isSet {
                try await registry.add("n\(round % 7)", adapterFiles("\(round % 11)"))
                if round % 3 == 0 { try await registry.remove(name: "n\(round % 7)", actor: "x") }
                round += 1
            }
        }()
        for round in 0..<20 {
            let copy = scratch.sub("copy-\(round)")
            try? FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
            for path in tree(state) {
                // What goes away meanwhile is not copied.
                try? FileManager.default.copyItem(
                    at: state.appendingPathComponent(path), to: copy.appendingPathComponent(path))
            }
            do {
                let opened = try openRegistry(copy)
                for record in opened.list().adapters {
                    let weights = try? opened.weights(record.name)
                    let isRight = weights?.hasPrefix("weights ") == true
                    #expect(record.state == (isRight ? .ready : .damaged))
                }
                await opened.close()
            } catch let error as RegistryError {
                #expect(error.kind == .damaged || error.kind == .storage, "\(error)")
            }
        }
        isOver.set()
        try await load
    }

    @Test func acknowledgesNothingOnceTheDirectoryIsGone() async throws {
        let registry = try openRegistry(state)
        try await registry.add("a")
        let moved = scratch.sub("moved")
        try FileManager.default.moveItem(at: state, to: moved)
        let refused = await error { try await registry.pin(name: "a", actor: "x") }
        #expect(refused?.kind == .storage)
        #expect(refused?.message.contains("removed or replaced") == true)
        #expect(await kind { try await registry.add("b") } == .storage)
        // Another directory in its place is not taken for it.
        try FileManager.default.copyItem(at: moved, to: state)
        #expect(await kind { try await registry.pin(name: "a", actor: "x") } == .storage)
        try FileManager.default.removeItem(at: state)
        try FileManager.default.moveItem(at: moved, to: state)
        #expect(try await registry.pin(name: "a", actor: "x").pinned)
        #expect(try registry.weights("a") == "weights one")
    }
}
