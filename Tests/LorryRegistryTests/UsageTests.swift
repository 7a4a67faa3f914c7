import Foundation
import LorryRegistry
import Testing

struct UsageTests {
    let scratch: ScratchFolder
    let state: URL

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
    }

    private func key(
        _ day: String, _ tenant: String, _ keyID: String, _ adapter: String
    ) -> UsageKey {
        UsageKey(day: day, tenant: tenant, keyID: keyID, adapter: adapter)
    }

    private func counts(_ requests: Int) -> UsageCounts {
        var counts = UsageCounts()
        counts.requestCount = requests
        counts.promptTokenCount = 10 * requests
        counts.completionTokenCount = 100 * requests
        counts.cachedTokenCount = 1000 * requests
        return counts
    }

    private func fill(_ registry: AdapterRegistry) async throws {
        try await registry.addUsage([
            key("2026-11-20", "blue", "k1", "sql"): counts(1),
            key("2026-11-21", "blue", "k1", "sql"): counts(2),
            key("2026-11-21", "blue", "k2", ""): counts(4),
            key("2026-11-21", "red", "k3", "sql"): counts(8),
        ])
    }

    private func requests(
        _ registry: AdapterRegistry, _ change: (inout UsageQuery) -> Void
    ) async throws -> [Int] {
        var query = UsageQuery()
        change(&query)
        return try await registry.usage(query).map(\.counts.requestCount)
    }

    @Test func addsUpAndSurvives() async throws {
        let registry = try openRegistry(state)
        try await fill(registry)
        try await registry.addUsage([key("2026-11-21", "blue", "k1", "sql"): counts(16)])
        await registry.close()
        let again = try openRegistry(state)
        let rows = try await again.usage(UsageQuery())
        #expect(rows.map(\.counts.requestCount) == [1, 18, 4, 8])
        let busiest = try #require(rows.first { $0.counts.requestCount == 18 })
        #expect(busiest.key == key("2026-11-21", "blue", "k1", "sql"))
        #expect(busiest.counts == counts(18))
    }

    @Test func filters() async throws {
        let registry = try openRegistry(state)
        try await fill(registry)
        #expect(try await requests(registry) { $0.tenant = "red" } == [8])
        #expect(try await requests(registry) { $0.keyID = "k2" } == [4])
        #expect(try await requests(registry) { $0.adapter = "" } == [4])
        #expect(try await requests(registry) { $0.adapters = ["sql", "x"] } == [1, 2, 8])
        #expect(try await requests(registry) { $0.adapters = [] } == [])
        #expect(try await requests(registry) { $0.since = UTCDay("2026-11-21") }.count == 3)
        #expect(try await requests(registry) { $0.until = UTCDay("2026-11-20") } == [1])
    }

    @Test func groupsAndPages() async throws {
        let registry = try openRegistry(state)
        try await fill(registry)
        #expect(try await requests(registry) { $0.grouping = [.tenant] } == [7, 8])
        #expect(try await requests(registry) { $0.grouping = [.adapter] } == [4, 11])
        #expect(try await requests(registry) { $0.grouping = [] } == [15])
        for grouping in [Set(UsageQuery.Dimension.allCases), [.tenant, .day], [.key], []] {
            var query = UsageQuery()
            query.grouping = grouping
            let all = try await registry.usage(query)
            query.limit = 1
            var paged: [UsageRow] = []
            while let row = try await registry.usage(query).first {
                paged.append(row)
                query.after = row.key
            }
            #expect(paged == all)
        }
    }

    @Test func oldDaysAreSwept() async throws {
        let registry = try openRegistry(state)
        try await fill(registry)
        try await registry.sweepUsage(before: try #require(UTCDay("2026-11-21")))
        #expect(try await requests(registry) { _ in }.count == 3)
    }

    @Test func aNoteIsAnEventOfItsOwn() async throws {
        let registry = try openRegistry(state)
        try await registry.add("a")
        try await registry.note(.keys, detail: "added: x", actor: "serve")
        let events = try await registry.events(EventQuery())
        #expect(events.map(\.action) == [.add, .keys])
        #expect(events.last?.detail == "added: x")
        #expect(events.last?.name == "")
        var query = EventQuery()
        query.names = ["a"]
        #expect(try await registry.events(query).map(\.action) == [.add])
    }
}
