import Foundation
import GRDB
import LorryRegistry
import Testing

struct StateDirectoryTests {
    let scratch: ScratchFolder
    let state: URL

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
    }

    private var database: String { state.appendingPathComponent("registry.sqlite").path }

    @Test func refusesASecondOpenerAndNamesTheFolder() async throws {
        let registry = try openRegistry(state)
        let refused = await error { _ = try openRegistry(state) }
        #expect(refused?.kind == .busy)
        #expect(refused?.message.contains(state.path) == true)
        #expect(refused?.message.contains("\(ProcessInfo.processInfo.processIdentifier)") == true)
        await registry.close()
        let next = try openRegistry(state)
        #expect(next.count == 0)
    }

    @Test func lettingGoOfTheRegistryFreesTheFolder() async throws {
        do { _ = try openRegistry(state) }
        let next = try openRegistry(state)
        try await next.add("a")
    }

    @Test func syncsEveryCommit() async throws {
        let registry = try openRegistry(state)
        #expect(try registry.journalSettings() == ["wal", "2"])
    }

    @Test(arguments: [0, 100, 4096, 8192])
    func refusesADamagedDatabase(offset: Int) async throws {
        let registry = try openRegistry(state)
        try await registry.add("a")
        await registry.close()
        let before = storedVersions(state)
        var bytes = try Data(contentsOf: URL(fileURLWithPath: database))
        try #require(bytes.count > offset + 3000)
        for index in offset..<offset + 3000 { bytes[index] = 0xA5 }
        try bytes.write(to: URL(fileURLWithPath: database))
        let refused = await error { _ = try openRegistry(state) }
        #expect(refused?.kind == .damaged, "\(refused?.message ?? "opened")")
        #expect(refused?.message.contains(database) == true)
        // What could still be rescued is not swept.
        #expect(storedVersions(state) == before)
    }

    @Test func refusesALostDatabase() async throws {
        let registry = try openRegistry(state)
        try await registry.add("a")
        await registry.close()
        let before = storedVersions(state)
        for suffix in ["", "-wal", "-shm"] {
            try? FileManager.default.removeItem(atPath: database + suffix)
        }
        let refused = await error { _ = try openRegistry(state) }
        #expect(refused?.kind == .damaged)
        #expect(storedVersions(state) == before)
    }

    @Test func refusesAnotherProgramsDatabase() async throws {
        try FileManager.default.createDirectory(at: state, withIntermediateDirectories: true)
        let foreign = try DatabaseQueue(path: database)
        try await foreign.write { try $0.execute(sql: "CREATE TABLE song (title TEXT)") }
        try foreign.close()
        #expect(await kind { _ = try openRegistry(state) } == .damaged)
    }

    @Test func refusesANewerSchema() async throws {
        await (try openRegistry(state)).close()
        let queue = try DatabaseQueue(path: database)
        try await queue.write {
            try $0.execute(sql: "INSERT INTO grdb_migrations VALUES ('9 from the future')")
        }
        try queue.close()
        let refused = await error { _ = try openRegistry(state) }
        #expect(refused?.kind == .unsupported)
        #expect(refused?.message.contains("newer") == true)
    }

    @Test func cannotRewriteTheAuditLog() async throws {
        let registry = try openRegistry(state)
        try await registry.add("a")
        await registry.close()
        let queue = try DatabaseQueue(path: database)
        for statement in ["DELETE FROM events", "UPDATE events SET actor = 'nobody'"] {
            await #expect(throws: DatabaseError.self) {
                try await queue.write { try $0.execute(sql: statement) }
            }
        }
        try queue.close()
    }

    @Test func explainsAPathThatIsNoFolder() async throws {
        try Data([1]).write(to: state)
        let refused = await error { _ = try openRegistry(state) }
        #expect(refused?.kind == .storage)
        #expect(refused?.message.contains(state.path) == true)
    }

    @Test func leavesForeignFilesInTheStoreAlone() async throws {
        await (try openRegistry(state)).close()
        let foreign = state.appendingPathComponent("store/ab/notes")
        try FileManager.default.createDirectory(at: foreign, withIntermediateDirectories: true)
        try FileManager.default.createDirectory(
            at: state.appendingPathComponent("store/ab/ab" + String(repeating: "0", count: 62)),
            withIntermediateDirectories: true)
        await (try openRegistry(state)).close()
        #expect(tree(state.appendingPathComponent("store")) == ["ab", "ab/notes"])
    }
}
