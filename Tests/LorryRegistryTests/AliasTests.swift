import Foundation
import LorryRegistry
import Testing

@Suite struct AliasTests {
    /// `a` at version two after one, and `b` at version three.
    private func seeded(
        _ state: URL, configure: (inout RegistryConfiguration) -> Void = { _ in }
    ) async throws -> (registry: AdapterRegistry, one: AdapterVersionID) {
        let registry = try openRegistry(state, configure: configure)
        let one = try await registry.add("a").record.version
        try await registry.add("a", adapterFiles("two"))
        try await registry.add("b", adapterFiles("three"))
        return (registry, one)
    }

    @Test func followsTheCurrentVersion() async throws {
        let scratch = try ScratchFolder()
        let (registry, _) = try await seeded(scratch.sub("state"))
        let (alias, created) = try await registry.setAlias(name: "prod", to: "a", actor: "x")
        #expect(created && !alias.isFixed && alias.target == "a")
        #expect(try registry.weights("prod") == "weights two")
        try await registry.add("a", adapterFiles("four"))
        #expect(try registry.weights("prod") == "weights four")
        #expect(try registry.acquire("prod").record.name == "a")
        #expect(try registry.record(name: "a").aliases == ["prod"])
        await registry.close()
    }

    @Test func staysAtAFixedVersionAndKeepsIt() async throws {
        let scratch = try ScratchFolder()
        let (registry, one) = try await seeded(scratch.sub("state")) { $0.maxVersionsPerName = 2 }
        let target = "a@\(one.digest.prefix(12))"
        let alias = try await registry.setAlias(name: "prod", to: target, actor: "x").alias
        #expect(alias.isFixed && alias.version == one && alias.target == "a@\(one.digest)")
        for text in ["four", "five", "six"] { try await registry.add("a", adapterFiles(text)) }
        #expect(try registry.weights("prod") == "weights one")
        #expect(try registry.weights("a") == "weights six")
        #expect(try registry.versions(name: "a").count == 2)
        #expect(try registry.weights("prod@\(one.digest.prefix(8))") == "weights one")
        try await registry.removeAlias(name: "prod", actor: "x")
        try await registry.add("a", adapterFiles("seven"))
        #expect(try !registry.versions(name: "a").contains { $0.version == one })
        await registry.close()
    }

    @Test func movesInOneStepAndOutlivesARestart() async throws {
        let scratch = try ScratchFolder()
        let state = scratch.sub("state")
        let (registry, _) = try await seeded(state)
        try await registry.setAlias(name: "prod", to: "a", actor: "x")
        let (moved, created) = try await registry.setAlias(name: "prod", to: "b", actor: "x")
        #expect(!created && moved.adapter == "b")
        #expect(try registry.record(name: "a").aliases.isEmpty)
        let again = try await registry.setAlias(name: "prod", to: "b", actor: "x")
        #expect(!again.created && again.alias == moved)
        let events = try await registry.events(EventQuery()).suffix(3)
        #expect(events.map(\.action) == [.alias, .unalias, .alias], "the repetition has no event")
        #expect(events.map(\.name) == ["a", "a", "b"])
        #expect(events.allSatisfy { $0.detail == "prod" })
        await registry.close()
        let reopened = try openRegistry(state)
        #expect(reopened.aliases() == [moved])
        #expect(try reopened.weights("prod") == "weights three")
        await reopened.close()
    }

    @Test func anAliasAndAnAdapterNeverShareAName() async throws {
        let scratch = try ScratchFolder()
        let (registry, _) = try await seeded(scratch.sub("state")) { $0.reservedNames = ["base"] }
        try await registry.setAlias(name: "prod", to: "a", actor: "x")
        func refused(_ body: () async throws -> Void) async -> RegistryError.Kind? {
            await kind(body)
        }
        #expect(await refused { try await registry.add("prod") } == .conflict)
        #expect(
            await refused { try await registry.setAlias(name: "b", to: "a", actor: "x") }
                == .conflict)
        #expect(
            await refused { try await registry.setAlias(name: "base", to: "a", actor: "x") }
                == .conflict)
        #expect(
            await refused { try await registry.setAlias(name: "p", to: "prod", actor: "x") }
                == .notFound, "no chains")
        #expect(
            await refused { try await registry.setAlias(name: "../x", to: "a", actor: "x") }
                == .invalid)
        #expect(
            await refused { try await registry.setAlias(name: "p", to: "a@00000000", actor: "x") }
                == .notFound)
        let missing = await error { _ = try registry.record(name: "prod") }
        #expect(missing?.message == "there is no adapter 'prod': it is an alias of 'a'")
        await registry.close()
    }

    @Test func anAdapterHasABoundedNumberOfAliases() async throws {
        let scratch = try ScratchFolder()
        let (registry, _) = try await seeded(scratch.sub("state")) { $0.maxAliasesPerName = 2 }
        for name in ["p", "q", "q"] { try await registry.setAlias(name: name, to: "a", actor: "x") }
        let refusal = await error { try await registry.setAlias(name: "r", to: "a", actor: "x") }
        #expect(refusal?.kind == .conflict)
        #expect(refusal?.message == "'a' has 2 aliases already")
        try await registry.setAlias(name: "q", to: "b", actor: "x")
        try await registry.setAlias(name: "r", to: "a", actor: "x")
        await registry.close()
    }

    @Test func whatAnAliasStandsForIsNotRemoved() async throws {
        let scratch = try ScratchFolder()
        let (registry, _) = try await seeded(scratch.sub("state"))
        try await registry.setAlias(name: "prod", to: "a", actor: "x")
        let refusal = await error { try await registry.remove(name: "a", actor: "x") }
        #expect(refusal?.kind == .conflict)
        #expect(refusal?.message.contains("'prod'") == true)
        try await registry.removeAlias(name: "prod", actor: "x")
        try await registry.remove(name: "a", actor: "x")
        #expect(
            await kind { try await registry.removeAlias(name: "prod", actor: "x") } == .notFound)
        await registry.close()
    }

    @Test func tenantsHaveTheirOwnAndSeeTheSharedOnes() async throws {
        let scratch = try ScratchFolder()
        let (registry, _) = try await seeded(scratch.sub("state"))
        try await registry.add("c", adapterFiles("blue"), tenant: "blue")
        try await registry.setAlias(name: "prod", to: "a", actor: "x")
        #expect(try registry.weights("prod", tenant: "blue") == "weights two")
        #expect(
            await kind {
                try await registry.setAlias(name: "own", tenant: "blue", to: "a", actor: "x")
            } == .notFound, "only adapters of the same tenant")
        try await registry.setAlias(name: "prod", tenant: "blue", to: "c", actor: "x")
        #expect(try registry.weights("prod", tenant: "blue") == "weights blue")
        #expect(try registry.weights("prod", tenant: "green") == "weights two")
        #expect(registry.aliases(of: ["blue"]).map(\.adapter) == ["c"])
        #expect(registry.aliases().map(\.tenant) == ["blue", "default"])
        await registry.close()
    }

    @Test func preconditionsGuardIt() async throws {
        let scratch = try ScratchFolder()
        let (registry, _) = try await seeded(scratch.sub("state"))
        let isNew = Precondition(ifNoneMatch: .any)
        try await registry.setAlias(name: "prod", to: "a", expecting: isNew, actor: "x")
        #expect(
            await kind {
                try await registry.setAlias(name: "prod", to: "b", expecting: isNew, actor: "x")
            } == .preconditionFailed)
        let atB = Precondition(ifMatch: .tags(["b"]))
        #expect(
            await kind {
                try await registry.removeAlias(name: "prod", expecting: atB, actor: "x")
            } == .preconditionFailed)
        let atA = Precondition(ifMatch: .tags(["a"]))
        try await registry.setAlias(name: "prod", to: "b", expecting: atA, actor: "x")
        #expect(try registry.weights("prod") == "weights three")
        await registry.close()
    }
}
