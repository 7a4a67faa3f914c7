import CraftedArchives
import Foundation
import LorryRegistry
import Testing

struct FolderImportTests {
    let scratch: ScratchFolder
    let state: URL
    let source: URL

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
        source = scratch.sub("adapters")
        try FileManager.default.createDirectory(at: source, withIntermediateDirectories: true)
    }

    @discardableResult
    private func write(_ name: String, _ files: [NamedFile] = adapterFiles()) throws -> URL {
        let folder = source.appendingPathComponent(name, isDirectory: true)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for file in files {
            try Data(file.bytes).write(to: folder.appendingPathComponent(file.name))
        }
        return folder
    }

    private func summary(_ outcomes: [ImportOutcome]) -> [String: String] {
        var summary: [String: String] = [:]
        for outcome in outcomes {
            summary[outcome.name] =
                switch outcome.result {
                case .registered(let record): "registered \(record.name)"
                case .unchanged: "unchanged"
                case .superseded: "superseded"
                case .refused(let error): "refused \(error.kind)"
                }
        }
        return summary
    }

    @Test func registersEachFolderAndSaysWhatHappened() async throws {
        try write("a")
        try write(
            "b",
            adapterFiles("two") + [
                ("training_args.bin", [1]), ("optimizer.pt", [2]), ("run.log", [3]),
            ])
        try FileManager.default.createDirectory(
            at: source.appendingPathComponent("b/checkpoint-10"),
            withIntermediateDirectories: true)
        try write("pickle", adapterFiles() + [("adapter_model.bin", [1])])
        try write("cut", [adapterFiles()[0]])
        try write("wrong", [adapterFiles()[0], ("adapter_model.safetensors", [1])])
        try write("bad name")
        try write("base")
        try write("no-adapter", [("notes.txt", [1])])
        try Data([1]).write(to: source.appendingPathComponent("file"))
        let registry = try openRegistry(state) { $0.reservedNames = ["base"] }
        let outcomes = try await registry.importFolders(in: source, actor: "start")
        #expect(
            summary(outcomes) == [
                "a": "registered a", "b": "registered b", "pickle": "refused unsupported",
                "cut": "refused invalid", "wrong": "refused invalid",
                "bad name": "refused invalid", "base": "refused conflict",
            ])
        #expect(outcomes.map(\.name) == outcomes.map(\.name).sorted())
        #expect(try registry.weights("b") == "weights two")
        #expect(stagedNames(state).isEmpty)
        #expect(storedVersions(state).count == 2)
    }

    @Test func leavesUnchangedFoldersAlone() async throws {
        try write("a")
        let registry = try openRegistry(state)
        _ = try await registry.importFolders(in: source, actor: "start")
        #expect(
            summary(try await registry.importFolders(in: source, actor: "start"))
                == ["a": "unchanged"])
        #expect(try await registry.events(EventQuery()).count == 1)
        try write("a", adapterFiles("two"))
        #expect(
            summary(try await registry.importFolders(in: source, actor: "start"))
                == ["a": "registered a"])
        #expect(try registry.weights("a") == "weights two")
    }

    @Test func doesNotUndoALaterUpload() async throws {
        try write("a")
        let registry = try openRegistry(state)
        _ = try await registry.importFolders(in: source, actor: "start")
        try await registry.add("a", adapterFiles("newer"))
        #expect(
            summary(try await registry.importFolders(in: source, actor: "start"))
                == ["a": "superseded"])
        #expect(try registry.weights("a") == "weights newer")
    }

    @Test func followsNoLinks() async throws {
        try write("a")
        let secret = scratch.sub("secret.json")
        try Data("{}".utf8).write(to: secret)
        try FileManager.default.createSymbolicLink(
            at: source.appendingPathComponent("a/tokenizer.json"), withDestinationURL: secret)
        try FileManager.default.createSymbolicLink(
            at: source.appendingPathComponent("b"),
            withDestinationURL: source.appendingPathComponent("a"))
        let registry = try openRegistry(state)
        let outcomes = try await registry.importFolders(in: source, actor: "start")
        #expect(summary(outcomes) == ["a": "refused invalid"])
        #expect(stagedNames(state).isEmpty)
    }

    @Test func importsManyWithEqualContent() async throws {
        for index in 0..<150 { try write("adapter-\(index)", adapterFiles("\(index % 7)")) }
        let registry = try openRegistry(state)
        let outcomes = try await registry.importFolders(in: source, actor: "start")
        #expect(outcomes.count == 150)
        #expect(summary(outcomes).values.allSatisfy { $0.hasPrefix("registered") })
        #expect(storedVersions(state).count == 7)
        for index in 0..<150 {
            #expect(try registry.weights("adapter-\(index)") == "weights \(index % 7)")
        }
        await registry.close()
        let reopened = try openRegistry(state)
        #expect(reopened.count == 150)
    }

    @Test func copiesOneFolderForAnUpload() async throws {
        let folder = try write("a")
        let registry = try openRegistry(state)
        let upload = try registry.makeUpload()
        try await upload.copyFolder(folder)
        let outcome = try await registry.add(name: "x", from: upload, actor: "y")
        #expect(outcome.created)
        // A copy: what happens to the source does not matter.
        try FileManager.default.removeItem(at: folder)
        #expect(try registry.weights("x") == "weights one")
        let missing = try registry.makeUpload()
        #expect(await kind { try await missing.copyFolder(folder) } == .invalid)
        await missing.discard()
    }

    @Test func resolvesOnlyBelowItsRoots() async throws {
        let folder = try write("a")
        let other = scratch.sub("other")
        try FileManager.default.createDirectory(at: other, withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(
            at: source.appendingPathComponent("out"), withDestinationURL: other)
        let roots = [source]
        for path in [folder.path, "a", "./a", "a/../a"] {
            #expect(try LocalFolder.resolve(path, below: roots).lastPathComponent == "a")
        }
        for path in [
            "", ".", "..", source.path, other.path, "out", "../other", "a/adapter_config.json",
            "/", "missing", "a\u{0}b",
        ] {
            #expect(
                await kind { _ = try LocalFolder.resolve(path, below: roots) } == .invalid,
                "\(path)")
        }
        #expect(await kind { _ = try LocalFolder.resolve("a", below: []) } == .invalid)
    }
}
