import Foundation
import LorryRegistry
import Testing

struct AdapterRegistryTests {
    let scratch: ScratchFolder
    let state: URL
    let registry: AdapterRegistry

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
        registry = try openRegistry(state) { $0.reservedNames = ["base"] }
    }

    @Test func returnsTheRecordOfContractsPage() async throws {
        let outcome = try await registry.add("pirate")
        let record = outcome.record
        #expect(outcome.created)
        #expect(record.name == "pirate")
        #expect(record.version.digest.count == 64)
        #expect(record.method == "LORA")
        #expect(record.rank == 8)
        #expect(record.targets == ["q_proj", "v_proj"])
        #expect(record.byteCount == 22)
        #expect(record.tenant == "default")
        #expect(record.state == .ready)
        #expect(!record.pinned)
        #expect(abs(record.created.timeIntervalSinceNow) < 60)
        #expect(try registry.record(name: "pirate") == record)
        let json = String(decoding: try JSONEncoder().encode(record), as: UTF8.self)
        #expect(json.contains("\"version\":\"\(record.version.digest)\""))
    }

    @Test func storesTheSameContentOnce() async throws {
        let first = try await registry.add("a")
        let before = tree(state.appendingPathComponent("store"))
        let again = try await registry.add("a")
        #expect(!again.created)
        #expect(again.record == first.record)
        let other = try await registry.add("b")
        #expect(other.created)
        #expect(other.record.version == first.record.version)
        #expect(tree(state.appendingPathComponent("store")) == before)
        #expect(stagedNames(state).isEmpty)
        #expect(try await registry.events(EventQuery()).map(\.name) == ["a", "b"])
    }

    @Test func remembersAllAcrossAnOrderlyEnd() async throws {
        try await registry.add("a")
        try await registry.add("a", adapterFiles("two"))
        try await registry.add("b", tenant: "acme")
        try await registry.pin(name: "a", actor: "x")
        try await registry.disable(name: "b", tenant: "acme", actor: "x")
        let records = registry.list().adapters
        let versions = try registry.versions(name: "a")
        await registry.close()
        let reopened = try openRegistry(state)
        #expect(reopened.list().adapters == records)
        #expect(try reopened.versions(name: "a") == versions)
        #expect(try reopened.weights("a") == "weights two")
        #expect(records.map(\.pinned) == [true, false])
        #expect(records.map(\.state) == [.ready, .disabled])
    }

    @Test func keepsVersionsAndServesThemByPrefix() async throws {
        let one = try await registry.add("a").record.version
        let two = try await registry.add("a", adapterFiles("two")).record.version
        #expect(try registry.versions(name: "a").map(\.version) == [two, one])
        #expect(try registry.versions(name: "a").map(\.current) == [true, false])
        #expect(try registry.weights("a") == "weights two")
        #expect(try registry.weights("a@\(one.digest)") == "weights one")
        #expect(try registry.weights("a@\(one.digest.prefix(8).uppercased())") == "weights one")
        let cases: [(String, RegistryError.Kind)] = [
            ("a@\(one.digest.prefix(7))", .invalid), ("a@", .invalid), ("a@zzzzzzzzzz", .invalid),
            ("a@\(one.digest)0", .invalid), ("a@00000000", .notFound), ("b", .notFound),
            ("b@\(one.digest)", .notFound), ("", .notFound),
        ]
        for (reference, expected) in cases {
            #expect(await kind { _ = try registry.acquire(reference) } == expected, "\(reference)")
        }
    }

    @Test func rollsBackToWhatWasServedBefore() async throws {
        let one = try await registry.add("a").record.version
        #expect(await kind { try await registry.rollback(name: "a", actor: "x") } == .conflict)
        let two = try await registry.add("a", adapterFiles("two")).record.version
        #expect(try await registry.rollback(name: "a", actor: "x").version == one)
        #expect(try registry.weights("a") == "weights one")
        // Version two was left for a reason, so after version three one is what comes back.
        let three = try await registry.add("a", adapterFiles("three")).record.version
        #expect(try registry.versions(name: "a").map(\.version) == [three, one, two])
        #expect(try await registry.rollback(name: "a", actor: "x").version == one)
        let byPrefix = String(two.digest.prefix(10))
        #expect(try await registry.rollback(name: "a", to: byPrefix, actor: "x").version == two)
        let current = await kind {
            try await registry.rollback(name: "a", to: two.digest, actor: "x")
        }
        #expect(current == .conflict)
        let unknown = await kind {
            try await registry.rollback(name: "a", to: "0000000000", actor: "x")
        }
        #expect(unknown == .notFound)
        #expect(await kind { try await registry.rollback(name: "z", actor: "x") } == .notFound)
    }

    @Test func reactivatesAnOldVersionThatIsUploadedAgain() async throws {
        let one = try await registry.add("a").record
        let two = try await registry.add("a", adapterFiles("two")).record
        let again = try await registry.add("a")
        #expect(!again.created)
        #expect(again.record.version == one.version)
        #expect(again.record.created == one.created)
        #expect(try registry.versions(name: "a").map(\.version) == [one.version, two.version])
        #expect(storedVersions(state).count == 2)
    }

    @Test func dropsTheVersionUnusedForLongest() async throws {
        let registry = try openRegistry(scratch.sub("other")) { $0.maxVersionsPerName = 2 }
        let versions = try await ["one", "two", "three"].asyncMap {
            try await registry.add("a", adapterFiles($0)).record.version
        }
        #expect(try registry.versions(name: "a").map(\.version) == [versions[2], versions[1]])
        #expect(
            storedVersions(scratch.sub("other")) == [versions[1].digest, versions[2].digest])
    }

    @Test func removesANameAndWhatOnlyItHad() async throws {
        let shared = try await registry.add("a").record
        try await registry.add("a", adapterFiles("two"))
        try await registry.add("b")
        let removed = try await registry.remove(name: "a", actor: "x")
        #expect(removed.name == "a")
        #expect(await kind { _ = try registry.acquire("a") } == .notFound)
        #expect(await kind { _ = try registry.versions(name: "a") } == .notFound)
        #expect(storedVersions(state) == [shared.version.digest])
        #expect(try registry.weights("b") == "weights one")
        #expect(await kind { try await registry.remove(name: "a", actor: "x") } == .notFound)
        #expect(stagedNames(state).isEmpty)
    }

    @Test func switchesAndSaysSoOnce() async throws {
        try await registry.add("a")
        #expect(try await registry.pin(name: "a", actor: "x").pinned)
        #expect(try await registry.pin(name: "a", actor: "x").pinned)
        #expect(try await !registry.unpin(name: "a", actor: "x").pinned)
        #expect(try await registry.disable(name: "a", actor: "x").state == .disabled)
        #expect(await kind { _ = try registry.acquire("a") } == .disabled)
        // A new version does not switch it on.
        #expect(try await registry.add("a", adapterFiles("two")).record.state == .disabled)
        #expect(try await registry.enable(name: "a", actor: "x").state == .ready)
        #expect(try registry.weights("a") == "weights two")
        let actions = try await registry.events(EventQuery()).map(\.action)
        #expect(actions == [.add, .pin, .unpin, .disable, .add, .enable])
        #expect(await kind { try await registry.pin(name: "z", actor: "x") } == .notFound)
    }

    @Test func honoursPreconditions() async throws {
        let absent = Precondition(ifNoneMatch: .any)
        let present = Precondition(ifMatch: .any)
        #expect(
            await kind { try await registry.add("a", expecting: present) } == .preconditionFailed)
        let one = try await registry.add("a", expecting: absent).record.version
        let two = adapterFiles("two")
        #expect(
            await kind { try await registry.add("a", two, expecting: absent) }
                == .preconditionFailed)
        let atOne = Precondition(ifMatch: .tags([one.digest]))
        try await registry.add("a", two, expecting: atOne)
        for body in [
            { try await registry.add("a", adapterFiles("three"), expecting: atOne) },
            { try await registry.remove(name: "a", expecting: atOne, actor: "x") },
            { try await registry.rollback(name: "a", expecting: atOne, actor: "x") },
        ] as [() async throws -> Any] {
            #expect(await kind { _ = try await body() } == .preconditionFailed)
        }
        #expect(try registry.weights("a") == "weights two")
        #expect(stagedNames(state).isEmpty)
        #expect(storedVersions(state).count == 2)
        try await registry.remove(name: "a", expecting: present, actor: "x")
    }

    @Test func keepsTenantsApart() async throws {
        try await registry.add("a", adapterFiles("shared"))
        try await registry.add("a", adapterFiles("acme"), tenant: "acme")
        try await registry.add("secret", tenant: "acme")
        #expect(try registry.weights("a") == "weights shared")
        #expect(try registry.weights("a", tenant: "acme") == "weights acme")
        #expect(try registry.weights("a", tenant: "umbrella") == "weights shared")
        #expect(try registry.weights("secret", tenant: "acme") == "weights one")
        // Word for word what a name that nobody has gets.
        let hidden = await error { _ = try registry.acquire("secret", tenant: "umbrella") }
        let missing = await error { _ = try registry.acquire("secreT", tenant: "umbrella") }
        #expect(hidden?.kind == .notFound)
        #expect(
            hidden?.message == missing?.message.replacingOccurrences(of: "secreT", with: "secret"))
        var query = ListQuery()
        query.tenants = ["umbrella", AdapterKey.sharedTenant]
        #expect(registry.list(query).adapters.map(\.key) == [AdapterKey(name: "a")])
        try await registry.remove(name: "a", tenant: "acme", actor: "x")
        #expect(try registry.weights("a", tenant: "acme") == "weights shared")
    }

    @Test func listsInPagesWithFilters() async throws {
        for name in ["b", "a2", "a1", "c"] { try await registry.add(name, adapterFiles(name)) }
        try await registry.add("a1", adapterFiles("x"), tenant: "acme")
        try await registry.disable(name: "c", actor: "x")
        var query = ListQuery()
        query.limit = 2
        var pages: [[String]] = []
        var remaining: [Int] = []
        repeat {
            let page = registry.list(query)
            pages.append(page.adapters.map(\.name))
            remaining.append(page.remainingCount)
            query.after = page.next
        } while query.after != nil
        #expect(pages == [["a1", "a1"], ["a2", "b"], ["c"]])
        #expect(remaining == [3, 1, 0])
        func names(_ change: (inout ListQuery) -> Void) -> [String] {
            var query = ListQuery()
            change(&query)
            return registry.list(query).adapters.map(\.name)
        }
        #expect(names { $0.namePrefix = "a" } == ["a1", "a1", "a2"])
        #expect(names { $0.tenants = ["acme"] } == ["a1"])
        #expect(names { $0.state = .disabled } == ["c"])
        #expect(names { $0.method = "lora" }.count == 5)
        #expect(names { $0.method = "IA3" }.isEmpty)
        #expect(names { $0.limit = 0 }.isEmpty)
    }

    @Test(arguments: [
        "", ".hidden", "-flag", "a/b", "a@b", "a:b", "a b", "é", "a\n", "..",
        String(repeating: "a", count: 129),
    ])
    func refusesNames(name: String) async {
        #expect(await kind { try await registry.add(name) } == .invalid)
        #expect(await kind { try await registry.add("a", tenant: name) } == .invalid)
        #expect(stagedNames(state).isEmpty)
    }

    @Test func takesAllAllowedNames() async throws {
        for name in ["a", "A-b_c.d9", "_x", "9", String(repeating: "a", count: 128)] {
            #expect(try await registry.add(name).created)
        }
        let taken = await error { try await registry.add("base") }
        #expect(taken?.kind == .conflict)
        #expect(taken?.message.contains("base") == true)
    }

    @Test func lastOfManyConcurrentUploadsWinsWhole() async throws {
        let uploads = 24
        let versions = try await withThrowingTaskGroup(of: AdapterVersionID.self) { group in
            for index in 0..<uploads {
                group.addTask { [registry] in
                    try await registry.add("same", adapterFiles("\(index % 8)")).record.version
                }
            }
            return try await group.reduce(into: Set()) { $0.insert($1) }
        }
        #expect(versions.count == 8)
        #expect(storedVersions(state).count == 8)
        let history = try registry.versions(name: "same")
        #expect(Set(history.map(\.version)) == versions)
        #expect(history.filter(\.current).count == 1)
        #expect(stagedNames(state).isEmpty)
        let text = try registry.weights("same")
        #expect((0..<8).contains { text == "weights \($0)" })
    }

    @Test func onlyOneOfConcurrentCreatorsWins() async throws {
        let results = await withTaskGroup(of: RegistryError.Kind?.self) { group in
            for index in 0..<12 {
                group.addTask { [registry] in
                    await kind {
                        try await registry.add(
                            "same", adapterFiles("\(index)"),
                            expecting: Precondition(ifNoneMatch: .any))
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(results.filter { $0 == nil }.count == 1)
        #expect(results.filter { $0 == .preconditionFailed }.count == 11)
        #expect(storedVersions(state).count == 1)
        #expect(stagedNames(state).isEmpty)
    }
}

extension Array {
    func asyncMap<Result>(
        _ transform: (Element) async throws -> Result
    ) async throws -> [Result] {
        var results: [Result] = []
        for element in self { results.append(try await transform(element)) }
        return results
    }
}
