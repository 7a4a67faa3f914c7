import Foundation
import LorryRegistry
import Testing

struct StoreCheckTests {
    let scratch: ScratchFolder
    let state: URL

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
    }

    private func weightsFile(_ version: AdapterVersionID) -> URL {
        state.appendingPathComponent(
            "store/\(version.digest.prefix(2))/\(version.digest)/adapter_model.safetensors")
    }

    private func expectDamaged(_ registry: AdapterRegistry) async throws {
        #expect(try registry.record(name: "a").state == .damaged)
        let refused = await error { _ = try registry.acquire("a") }
        #expect(refused?.kind == .damaged)
        #expect(refused?.message.contains("adapter_model.safetensors") == true)
        #expect(try registry.weights("b") == "weights two")
    }

    @Test(arguments: [true, false])
    func findsAtStartWhatIsMissingOrCut(removes: Bool) async throws {
        var registry = try openRegistry(state)
        let version = try await registry.add("a").record.version
        try await registry.add("b", adapterFiles("two"))
        await registry.close()
        if removes {
            try FileManager.default.removeItem(at: weightsFile(version))
        } else {
            try Data("weig".utf8).write(to: weightsFile(version))
        }
        registry = try openRegistry(state)
        try await expectDamaged(registry)
        // The same content again heals it, for good.
        let healed = try await registry.add("a")
        #expect(!healed.created)
        #expect(healed.record.state == .ready)
        #expect(try registry.weights("a") == "weights one")
        await registry.close()
        registry = try openRegistry(state)
        #expect(try registry.weights("a") == "weights one")
    }

    @Test func doesNotServeWhatFitsAnotherBaseModel() async throws {
        var registry = try openRegistry(state)
        let one = try await registry.add("a").record.version
        try await registry.add("b", adapterFiles("two"))
        try await registry.add("b")
        await registry.close()
        registry = try openRegistry(state) { configuration in
            configuration.misfit = { folder in
                folder.lastPathComponent == one.digest ? "layer 7 is not there" : nil
            }
        }
        #expect(try registry.record(name: "a").state == .incompatible)
        let refused = await error { _ = try registry.acquire("a") }
        #expect(refused?.kind == .unsupported)
        #expect(refused?.message.contains("layer 7 is not there") == true)
        #expect(try await registry.rollback(name: "b", actor: "x").state == .ready)
        #expect(await kind { try await registry.rollback(name: "b", actor: "x") } == .unsupported)
        await registry.close()
        // Under the base model that it was made for it is served again.
        registry = try openRegistry(state)
        #expect(try registry.weights("a") == "weights one")
    }

    @Test func findsAlteredBytesWhenAsked() async throws {
        let registry = try openRegistry(state)
        let version = try await registry.add("a").record.version
        try await registry.add("b", adapterFiles("two"))
        #expect(try await registry.check(actor: "x").isEmpty)
        try Data("weights 0ne".utf8).write(to: weightsFile(version))
        let damaged = try await registry.check(actor: "x")
        #expect(damaged.map(\.version) == [version])
        #expect(damaged.first?.names == [AdapterKey(name: "a")])
        try await expectDamaged(registry)
        let last = try await registry.events(EventQuery()).last
        #expect(last?.action == .damage)
        #expect(registry.leaseCount == 0)
        #expect(try await registry.add("a").record.state == .ready)
        #expect(try await registry.check(actor: "x").isEmpty)
    }

    /// What loads do not compare with checksums: a tokenizer that was altered, or that nobody sent.
    @Test func findsAlteredTexts() async throws {
        let registry = try openRegistry(state)
        let template = [("chat_template.jinja", Array("{{ messages }}".utf8))]
        try await registry.add("a", adapterFiles() + template)
        try await registry.add("b", adapterFiles("two"))
        let (a, b) = (try registry.acquire("a"), try registry.acquire("b"))
        #expect(a.textProblem() == nil && b.textProblem() == nil)
        try Data("{{ messagez }}".utf8).write(
            to: a.directory.appendingPathComponent("chat_template.jinja"))
        try Data("{}".utf8).write(to: b.directory.appendingPathComponent("tokenizer.json"))
        #expect(a.textProblem()?.contains("chat_template.jinja has other bytes") == true)
        #expect(b.textProblem()?.contains("'tokenizer.json' does not belong") == true)
    }

    @Test func rollsBackFromDamageButNotIntoIt() async throws {
        let registry = try openRegistry(state)
        let one = try await registry.add("a").record.version
        let two = try await registry.add("a", adapterFiles("two")).record.version
        try FileManager.default.removeItem(at: weightsFile(two))
        #expect(try await registry.check(actor: "x").map(\.version) == [two])
        #expect(try await registry.rollback(name: "a", actor: "x").version == one)
        #expect(await kind { try await registry.rollback(name: "a", actor: "x") } == .damaged)
        #expect(try registry.versions(name: "a").map(\.damaged) == [false, true])
        #expect(try registry.weights("a") == "weights one")
    }
}
