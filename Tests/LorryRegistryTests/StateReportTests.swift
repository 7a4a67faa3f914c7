import Foundation
import GRDB
import LorryRegistry
import Testing

struct StateReportTests {
    let scratch: ScratchFolder
    let state: URL

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
    }

    private func seed() async throws -> (one: AdapterVersionID, two: AdapterVersionID) {
        let registry = try openRegistry(state)
        let one = try await registry.add("a").record.version
        let two = try await registry.add("b", adapterFiles("two")).record.version
        await registry.close()
        return (one, two)
    }

    @Test func findsNothingWrongAndChangesNothing() async throws {
        _ = try await seed()
        let database = state.appendingPathComponent("registry.sqlite")
        let (bytes, paths) = (try Data(contentsOf: database), tree(state))
        let report = try StateReport.ofUnused(state)
        #expect(report.nameCount == 2)
        #expect(report.versionCount == 2)
        #expect(report.byteCount == 80)
        #expect(report.problems.isEmpty)
        #expect(report.leftovers.isEmpty)
        #expect(try Data(contentsOf: database) == bytes)
        #expect(tree(state) == paths)
    }

    /// What happens to a version's folder or weights, and a word of the problem.
    static let damages: [(name: String, word: String, harm: @Sendable (URL, URL) throws -> Void)] =
        [
            ("flipped", "other bytes", { file, _ in try Data("weights 0ne".utf8).write(to: file) }),
            ("cut", "instead of 11", { file, _ in try Data("weig".utf8).write(to: file) }),
            ("missing", "is missing", { file, _ in try FileManager.default.removeItem(at: file) }),
            (
                "swapped", "other bytes",
                { file, other in
                    try FileManager.default.removeItem(at: file)
                    try FileManager.default.copyItem(at: other, to: file)
                }
            ),
            (
                "a link", "not a plain file",
                { file, other in
                    try FileManager.default.removeItem(at: file)
                    try FileManager.default.createSymbolicLink(at: file, withDestinationURL: other)
                }
            ),
            (
                "no folder", "folder is missing",
                { file, _ in
                    try FileManager.default.removeItem(at: file.deletingLastPathComponent())
                }
            ),
            (
                "one file more", "does not belong",
                { file, _ in
                    try Data().write(
                        to: file.deletingLastPathComponent().appendingPathComponent("more"))
                }
            ),
        ]

    @Test(arguments: damages.indices)
    func namesWhatIsWrong(index: Int) async throws {
        let (one, two) = try await seed()
        let damage = Self.damages[index]
        try damage.harm(weightsFile(state, one), weightsFile(state, two))
        let report = try StateReport.ofUnused(state)
        #expect(report.problems.count == 1, "\(damage.name)")
        let problem = report.problems.first ?? ""
        #expect(problem.contains(damage.word), "\(damage.name): \(problem)")
        #expect(problem.contains(one.digest) && problem.contains("'a'"))
        // The other adapter is served, this one only where its bytes are right.
        let registry = try openRegistry(state)
        #expect(try registry.weights("b") == "weights two")
        let found = try await registry.report(actor: "x")
        #expect(found.problems.count == 1, "\(found)")
        #expect((try? registry.weights("a")) == nil, "\(damage.name)")
        // Uploaded again it is whole.
        try await registry.add("a")
        #expect(try registry.weights("a") == "weights one")
        await registry.close()
        #expect(try StateReport.ofUnused(state).problems.isEmpty, "\(damage.name)")
    }

    @Test func namesWhatIsLeftOver() async throws {
        _ = try await seed()
        let orphan = String(repeating: "ab", count: 32)
        for path in ["store/ab/\(orphan)", "store/ab/notes", "staging/half"] {
            try FileManager.default.createDirectory(
                at: state.appendingPathComponent(path), withIntermediateDirectories: true)
        }
        let report = try StateReport.ofUnused(state)
        #expect(report.problems.isEmpty)
        #expect(
            report.leftovers == [
                "store/ab/\(orphan): a version that no name has", "store/ab/notes: not of Lorry",
                "staging/half: an unfinished upload",
            ])
        let registry = try openRegistry(state)
        #expect(try await registry.report(actor: "x").leftovers == ["store/ab/notes: not of Lorry"])
    }

    @Test func readsAnOlderDatabaseAsItIs() throws {
        try FirstRelease.write(to: state)
        let database = state.appendingPathComponent("registry.sqlite")
        let before = try Data(contentsOf: database)
        let report = try StateReport.ofUnused(state)
        #expect(report.problems.isEmpty, "\(report.problems)")
        #expect(report.nameCount == 3)
        #expect(try Data(contentsOf: database) == before)
    }

    @Test func refusesWhatIsInUseOrNotThere() async throws {
        let missing = await error { _ = try StateReport.ofUnused(state) }
        #expect(missing?.message.contains("no state directory") == true)
        #expect(tree(scratch.url).isEmpty)
        let registry = try openRegistry(state)
        #expect(await kind { _ = try StateReport.ofUnused(state) } == .busy)
        await registry.close()
    }
}

/// The state directory of the first release: `a` at version two after one, `b` disabled and
/// pinned, and `c` of the tenant blue.
enum FirstRelease {
    static func write(to state: URL) throws {
        let fixture = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent()
            .appendingPathComponent("lorryTests/Fixtures/state-v1", isDirectory: true)
        try FileManager.default.createDirectory(at: state, withIntermediateDirectories: true)
        try FileManager.default.copyItem(
            at: fixture.appendingPathComponent("store"), to: state.appendingPathComponent("store"))
        let script = try String(
            contentsOf: fixture.appendingPathComponent("registry.sql"), encoding: .utf8)
        let queue = try DatabaseQueue(path: state.appendingPathComponent("registry.sqlite").path)
        try queue.writeWithoutTransaction {
            try $0.execute(sql: "PRAGMA journal_mode = WAL;" + script)
        }
        try queue.close()
    }
}
