import Foundation
import LorryRegistry
import Testing

struct EventFeedTests {
    let scratch: ScratchFolder
    let registry: AdapterRegistry

    init() throws {
        scratch = try ScratchFolder()
        registry = try openRegistry(scratch.sub("state"))
    }

    @Test func tellsWhoDidWhatInOrder() async throws {
        let one = try await registry.add("a").record.version
        let two = try await registry.add("a", adapterFiles("two")).record.version
        try await registry.rollback(name: "a", actor: "ann")
        try await registry.remove(name: "a", actor: "bob")
        try await registry.add("b", tenant: "acme")
        let events = try await registry.events(EventQuery())
        #expect(events.map(\.id) == [1, 2, 3, 4, 5])
        #expect(events.map(\.action) == [.add, .add, .rollback, .remove, .add])
        #expect(events.map(\.actor) == ["tester", "tester", "ann", "bob", "tester"])
        #expect(events.map(\.version) == [one, two, one, one, one])
        #expect(events[2].detail == "from \(two)")
        #expect(events.map(\.time) == events.map(\.time).sorted())
        var query = EventQuery()
        query.after = 1
        query.before = 5
        query.limit = 2
        #expect(try await registry.events(query).map(\.id) == [2, 3])
        query.newestFirst = true
        #expect(try await registry.events(query).map(\.id) == [4, 3])
        query = EventQuery()
        query.tenant = "acme"
        #expect(try await registry.events(query).map(\.name) == ["b"])
    }

    @Test func streamsWhatTheLogHolds() async throws {
        let first = registry.eventStream()
        let second = registry.eventStream()
        try await registry.add("a")
        try await registry.pin(name: "a", actor: "x")
        await registry.close()
        let streamed = await first.reduce(into: []) { $0.append($1) }
        #expect(streamed.map(\.action) == [.add, .pin])
        #expect(await second.reduce(into: []) { $0.append($1) } == streamed)
        let reopened = try openRegistry(scratch.sub("state"))
        #expect(try await reopened.events(EventQuery()) == streamed)
    }

    @Test func recordsNothingForWhatWasRefused() async throws {
        _ = await kind { try await registry.add("a", [adapterFiles()[0]]) }
        _ = await kind { try await registry.remove(name: "a", actor: "x") }
        #expect(try await registry.events(EventQuery()).isEmpty)
    }
}
