import CraftedArchives
import Foundation
import LorryRegistry
import Synchronization
import Testing

/// Ends the process, as far as the disk is concerned, before each single change to it.
struct CrashSafetyTests {
    struct Scenario: Sendable, CustomTestStringConvertible {
        let testDescription: String
        /// Weights that `a` may have afterwards; nil for no such adapter.
        let outcomes: Set<String?>
        let run: @Sendable (AdapterRegistry) async throws -> Void
    }

    /// All start from `a` at version two after one, and `b` at version one.
    static let scenarios = [
        Scenario(testDescription: "new name", outcomes: ["weights two"]) {
            try await $0.add("c", adapterFiles("three"))
        },
        Scenario(testDescription: "archive", outcomes: ["weights two", "weights three"]) {
            try await $0.addArchive("a", TarBuilder(adapterFiles("three")).archive)
        },
        Scenario(testDescription: "new version", outcomes: ["weights two", "weights three"]) {
            try await $0.add("a", adapterFiles("three"))
        },
        Scenario(testDescription: "known version", outcomes: ["weights two", "weights one"]) {
            try await $0.add("a")
        },
        Scenario(testDescription: "remove", outcomes: ["weights two", nil]) {
            try await $0.remove(name: "a", actor: "x")
        },
        Scenario(testDescription: "remove under a lease", outcomes: ["weights two", nil]) {
            let lease = try $0.acquire("a")
            try await $0.remove(name: "a", actor: "x")
            lease.release()
        },
        Scenario(testDescription: "rollback", outcomes: ["weights two", "weights one"]) {
            try await $0.rollback(name: "a", actor: "x")
        },
        Scenario(testDescription: "pin and disable", outcomes: ["weights two"]) {
            try await $0.pin(name: "a", actor: "x")
            try await $0.disable(name: "b", actor: "x")
        },
        Scenario(testDescription: "alias", outcomes: ["weights two"]) {
            try await $0.setAlias(name: "other", to: "b", actor: "x")
            try await $0.setAlias(name: "other", to: "a", actor: "x")
            try await $0.removeAlias(name: "other", actor: "x")
        },
        Scenario(testDescription: "backup", outcomes: ["weights two"]) {
            _ = try await $0.archive()
        },
        Scenario(testDescription: "refused upload", outcomes: ["weights two"]) { registry in
            let refused = await kind { try await registry.add("a", [adapterFiles()[0]]) }
            #expect(refused == .invalid || refused == .storage)
        },
    ]

    private func seed(_ state: URL) async throws {
        let registry = try openRegistry(state)
        try await registry.add("a")
        try await registry.add("a", adapterFiles("two"))
        try await registry.add("b")
        await registry.close()
    }

    /// Everything that must hold whatever happened.
    private func expectSound(
        _ state: URL, _ scenario: Scenario, _ comment: Comment
    ) async throws {
        let registry = try openRegistry(state)
        #expect(stagedNames(state).isEmpty, comment)
        let known = try registry.list().adapters.flatMap {
            try registry.versions(name: $0.name).map(\.version.digest)
        }
        #expect(storedVersions(state) == Set(known), comment)
        #expect(try await registry.check(actor: "x").isEmpty, comment)
        #expect(scenario.outcomes.contains(try? registry.weights("a")), comment)
        if registry.list().adapters.contains(where: { $0.name == "c" }) {
            #expect(try registry.weights("c") == "weights three", comment)
        }
        #expect(try registry.record(name: "b").method == "LORA", comment)
        for alias in registry.aliases() {
            #expect(try registry.weights(alias.name) == registry.weights(alias.adapter), comment)
        }
        // It goes on as if nothing had happened.
        try await registry.add("d", adapterFiles("four"))
        #expect(try registry.weights("d") == "weights four", comment)
        await registry.close()
    }

    @Test(arguments: scenarios)
    func isWholeOrAbsentAfterAKillAtAnyStep(scenario: Scenario) async throws {
        let scratch = try ScratchFolder()
        let state = scratch.sub("state")
        try await seed(state)
        // A copy of the directory before a change is what a kill at that moment leaves.
        let steps = Mutex<[DiskOperation]>([])
        let copying = FileLayer { operation in
            let index = steps.withLock { steps in
                steps.append(operation)
                return steps.count - 1
            }
            try FileManager.default.copyItem(at: state, to: scratch.sub("killed-\(index)"))
        }
        let registry = try openRegistry(state, files: copying)
        try await scenario.run(registry)
        await registry.close()
        let killed = steps.withLock { $0 }
        #expect(killed.count > 3)
        for (index, operation) in killed.enumerated() {
            try await expectSound(
                scratch.sub("killed-\(index)"), scenario, "killed before \(operation)")
        }
        try await expectSound(state, scenario, "not killed")
    }

    @Test(arguments: scenarios)
    func leavesNothingBehindWhenOneStepFails(scenario: Scenario) async throws {
        var failing = 0
        var steps = 0
        repeat {
            let scratch = try ScratchFolder()
            let state = scratch.sub("state")
            try await seed(state)
            let isArmed = Mutex(false)
            let count = Mutex(0)
            let failed = Mutex<DiskOperation?>(nil)
            let target = failing
            let layer = FileLayer { operation in
                guard isArmed.withLock({ $0 }) else { return }
                // Rows that are written cannot fail any more.
                if operation == .rowsCommitted { return }
                let index = count.withLock { count in
                    defer { count += 1 }
                    return count
                }
                if index == target {
                    failed.withLock { $0 = operation }
                    throw RegistryError(.storage, "no space left, says the test")
                }
            }
            let registry = try openRegistry(state, files: layer)
            isArmed.withLock { $0 = true }
            let failure = await error { try await scenario.run(registry) }
            isArmed.withLock { $0 = false }
            #expect(failure == nil || failure?.kind == .storage)
            let comment: Comment = "failed at \(failed.withLock { "\($0 as Any)" })"
            // It still serves without a restart.
            #expect(scenario.outcomes.contains(try? registry.weights("a")), comment)
            try await registry.add("e", adapterFiles("five"))
            #expect(try registry.weights("e") == "weights five", comment)
            await registry.close()
            try await expectSound(state, scenario, comment)
            steps = count.withLock { $0 }
            failing += 1
        } while failing < steps
    }

    @Test func canBeKilledWhileOpening() async throws {
        let scratch = try ScratchFolder()
        let state = scratch.sub("state")
        let steps = Mutex(0)
        let copying = FileLayer { _ in
            let index = steps.withLock { steps in
                defer { steps += 1 }
                return steps
            }
            try FileManager.default.copyItem(at: state, to: scratch.sub("killed-\(index)"))
        }
        let registry = try openRegistry(state, files: copying)
        await registry.close()
        let count = steps.withLock { $0 }
        #expect(count > 2)
        for index in 0..<count {
            let reopened = try openRegistry(scratch.sub("killed-\(index)"))
            try await reopened.add("a")
            #expect(try reopened.weights("a") == "weights one")
            await reopened.close()
        }
    }
}
