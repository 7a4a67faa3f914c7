import Foundation
import LorryRegistry
import Synchronization
import Testing

/// A restore or a backup's file that is killed, or that fails, at each of its steps.
struct BackupCrashTests {
    @Test func aKilledRestoreIsAbsentAndCanBeRepeated() async throws {
        let scratch = try ScratchFolder()
        let registry = try openRegistry(scratch.sub("state"))
        try await registry.add("a")
        try await registry.add("b", adapterFiles("two"))
        let archive = try await registry.archive()
        let restored = scratch.sub("restored")
        let steps = Mutex<[DiskOperation]>([])
        let copying = FileLayer { operation in
            let index = steps.withLock { steps in
                steps.append(operation)
                return steps.count - 1
            }
            guard FileManager.default.fileExists(atPath: restored.path) else { return }
            try FileManager.default.copyItem(at: restored, to: scratch.sub("killed-\(index)"))
        }
        let restore = try StateRestore(stateDirectory: restored, files: copying)
        try restore.push(archive)
        _ = try restore.finish()
        let killed = steps.withLock { $0 }
        #expect(killed.count > 10)
        for (index, operation) in killed.enumerated() {
            let left = scratch.sub("killed-\(index)")
            let comment: Comment = "killed before \(operation)"
            if let opened = try? openRegistry(left) {
                // Before anything was begun, or after all was done.
                let count = opened.list().adapters.count
                #expect(count == 0 || count == 2, comment)
                #expect(try await opened.check(actor: "x").isEmpty, comment)
                await opened.close()
                continue
            }
            let refused = await error { _ = try openRegistry(left) }
            #expect(refused?.message.contains("run it again") == true, comment)
            let again = try StateRestore(stateDirectory: left)
            try again.push(archive)
            _ = try again.finish()
            let opened = try openRegistry(left)
            #expect(try opened.weights("b") == "weights two", comment)
            await opened.close()
        }
    }

    @Test(arguments: [true, false])
    func leavesNothingBehindWhenOneStepFails(isFile: Bool) async throws {
        let scratch = try ScratchFolder()
        let registry = try openRegistry(scratch.sub("state"))
        try await registry.add("a")
        let archive = try await registry.archive()
        let target = scratch.sub("target")
        var failing = 0
        var isComplete = false
        while !isComplete {
            let count = Mutex(0)
            let wanted = failing
            let layer = FileLayer { operation in
                // What cleans up after the failure works.
                if case .remove = operation { return }
                let index = count.withLock { count in
                    defer { count += 1 }
                    return count
                }
                if index == wanted { throw RegistryError(.full, "no space left, says the test") }
            }
            let failure = await error {
                let sink: any BackupSink =
                    isFile
                    ? try BackupFile(path: target.path, files: layer)
                    : try StateRestore(stateDirectory: target, files: layer)
                try sink.push(archive)
                _ = try sink.finish()
            }
            let left = tree(scratch.url).filter { !$0.hasPrefix("state") }
            if count.withLock({ $0 }) <= wanted {
                #expect(failure == nil)
                isComplete = true
            } else {
                #expect(failure?.kind == .full)
                // The last step is the sync of a name that stands there already.
                let isNamed = left == ["target"] || left.contains("target/registry.sqlite")
                #expect(left.isEmpty || isNamed, "\(failing): \(left)")
                try? FileManager.default.removeItem(at: target)
            }
            failing += 1
        }
        #expect(failing > 3)
    }
}
