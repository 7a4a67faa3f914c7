import Foundation
import LorryRegistry
import Testing

struct TenantHoldingsTests {
    let scratch: ScratchFolder
    let state: URL

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
    }

    private func byteCount(_ text: String) -> Int {
        adapterFiles(text).reduce(0) { $0 + $1.bytes.count }
    }

    private func add(
        _ registry: AdapterRegistry, _ name: String, _ text: String, _ allowance: TenantAllowance
    ) async throws {
        let upload = try registry.makeUpload()
        for file in adapterFiles(text) {
            try await upload.beginFile(file.name)
            try await upload.writeFile(file.bytes)
            try await upload.endFile()
        }
        _ = try await registry.add(
            name: name, tenant: "blue", from: upload, allowance: allowance, actor: "tester")
    }

    @Test func distinctVersionsCountOnce() async throws {
        let registry = try openRegistry(state) { $0.maxVersionsPerName = 2 }
        let size = byteCount("1")
        func holdings() -> [Int] {
            let holdings = registry.holdings(of: "blue")
            return [holdings.adapterCount, holdings.storedByteCount]
        }
        #expect(holdings() == [0, 0])
        try await registry.add("a", adapterFiles("1"), tenant: "blue")
        #expect(holdings() == [1, size])
        try await registry.add("b", adapterFiles("1"), tenant: "blue")
        #expect(holdings() == [2, size])
        try await registry.add("a", adapterFiles("2"), tenant: "blue")
        #expect(holdings() == [2, 2 * size])
        // The third version pushes the first out of the history, but b still has it.
        try await registry.add("a", adapterFiles("3"), tenant: "blue")
        #expect(holdings() == [2, 3 * size])
        try await registry.remove(name: "b", tenant: "blue", actor: "tester")
        #expect(holdings() == [1, 2 * size])
        try await registry.rollback(name: "a", tenant: "blue", actor: "tester")
        #expect(holdings() == [1, 2 * size])
        try await registry.add("a", adapterFiles("1"), tenant: "red")
        #expect(holdings() == [1, 2 * size])
        await registry.close()
        let again = try openRegistry(state)
        #expect(again.holdings(of: "blue").storedByteCount == 2 * size)
        #expect(again.holdings(of: "red").adapterCount == 1)
    }

    @Test func aNameTooMany() async throws {
        let registry = try openRegistry(state)
        let allowance = TenantAllowance(adapterCount: 2)
        try await add(registry, "a", "1", allowance)
        try await add(registry, "b", "2", allowance)
        let refused = await error { try await add(registry, "c", "3", allowance) }
        #expect(refused?.kind == .overAllowance)
        #expect(refused?.message.contains("may have 2 adapters and has 2") == true)
        #expect(registry.openUploadCount == 0)
        #expect(stagedNames(state).isEmpty)
        // Another version of a name is no further name.
        try await add(registry, "a", "3", allowance)
        // With less allowed than there is, what adds nothing is still allowed.
        let less = TenantAllowance(adapterCount: 1, storedByteCount: 1)
        try await add(registry, "a", "3", less)
        try await add(registry, "a", "1", less)
        #expect(await kind { try await add(registry, "a", "4", less) } == .overAllowance)
        try await registry.remove(name: "b", tenant: "blue", actor: "tester")
        try await add(registry, "c", "1", allowance)
    }

    @Test func aPinTooMany() async throws {
        let registry = try openRegistry(state)
        for name in ["a", "b", "c"] { try await add(registry, name, name, .unlimited) }
        func pin(_ name: String, _ limit: Int) async throws {
            try await registry.pin(
                name: name, tenant: "blue", allowance: TenantAllowance(pinnedCount: limit),
                actor: "tester")
        }
        try await pin("a", 2)
        try await pin("b", 2)
        #expect(await kind { try await pin("c", 2) } == .overAllowance)
        #expect(await kind { try await pin("c", 0) } == .overAllowance)
        // What is pinned already asks for nothing more, also where less is allowed by now.
        try await pin("a", 0)
        // The count is that of the database after a restart.
        await registry.close()
        let again = try openRegistry(state)
        let refused = await error {
            try await again.pin(
                name: "c", tenant: "blue", allowance: TenantAllowance(pinnedCount: 2), actor: "x")
        }
        #expect(refused?.message.contains("may pin 2 adapters and has pinned 2") == true)
        try await again.unpin(name: "a", tenant: "blue", actor: "x")
        try await again.pin(
            name: "c", tenant: "blue", allowance: TenantAllowance(pinnedCount: 2), actor: "x")
    }

    @Test func bytesTooMany() async throws {
        let registry = try openRegistry(state) { $0.maxVersionsPerName = 2 }
        let size = byteCount("1")
        let allowance = TenantAllowance(storedByteCount: 2 * size + size / 2)
        try await add(registry, "a", "1", allowance)
        try await add(registry, "a", "2", allowance)
        // The history drops the first version, so there is room.
        try await add(registry, "a", "3", allowance)
        try await add(registry, "b", "3", allowance)
        let before = tree(state.appendingPathComponent("store"))
        let refused = await error { try await add(registry, "b", "4", allowance) }
        #expect(refused?.kind == .overAllowance)
        let words = "may store \(2 * size + size / 2) bytes of adapters and stores \(2 * size)"
        #expect(refused?.message.contains(words) == true, "\(refused?.message ?? "")")
        #expect(refused?.message.contains("\(3 * size)") == true)
        #expect(tree(state.appendingPathComponent("store")) == before)
        #expect(stagedNames(state).isEmpty)
    }

    /// The last place goes to one of those who ask for it at once.
    @Test func noTwoUploadsShareTheLastRoom() async throws {
        let registry = try openRegistry(state)
        let allowance = TenantAllowance(adapterCount: 3)
        let kinds = await withTaskGroup(of: RegistryError.Kind?.self) { group in
            for index in 0..<12 {
                group.addTask {
                    await kind { try await add(registry, "n\(index)", "\(index)", allowance) }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(kinds.count { $0 == nil } == 3)
        #expect(kinds.count { $0 == .overAllowance } == 9)
        #expect(registry.holdings(of: "blue").adapterCount == 3)
        #expect(storedVersions(state).count == 3)
    }
}
