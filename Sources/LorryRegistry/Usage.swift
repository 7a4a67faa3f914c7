import Foundation
import GRDB

/// A day of UTC.
public struct UTCDay: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// As ISO 8601 writes it, `2026-11-21`.
    public let text: String

    private static let style = Date.ISO8601FormatStyle().year().month().day()

    /// The day that holds `date`.
    public init(_ date: Date) { text = date.formatted(Self.style) }

    /// Nil where the text is no day in the form `2026-11-21`.
    public init?(_ text: String) {
        guard let date = try? Date(text, strategy: Self.style), UTCDay(date).text == text else {
            return nil
        }
        self.text = text
    }

    /// `2026-11`
    public var month: String { String(text.prefix(7)) }
    public var firstOfMonth: UTCDay { UTCDay(checked: month + "-01") }

    private init(checked text: String) { self.text = text }

    public func adding(days count: Int) -> UTCDay {
        let start = (try? Date(text, strategy: Self.style)) ?? .distantPast
        return UTCDay(start.addingTimeInterval(Double(count) * 86400))
    }

    /// Midnight, when it begins.
    public var start: Date { (try? Date(text, strategy: Self.style)) ?? .distantPast }

    public static func < (left: UTCDay, right: UTCDay) -> Bool { left.text < right.text }
    public var description: String { text }
}

/// What usage is counted by. A member is empty in an answer that was not grouped by it.
public struct UsageKey: Hashable, Sendable {
    public var day: String
    public var tenant: String
    public var keyID: String
    /// Empty for the base model.
    public var adapter: String

    public init(day: String, tenant: String, keyID: String, adapter: String) {
        self.day = day
        self.tenant = tenant
        self.keyID = keyID
        self.adapter = adapter
    }
}

/// Requests, and the tokens that they took and gave.
public struct UsageCounts: Sendable, Equatable {
    public var requestCount = 0
    public var promptTokenCount = 0
    public var completionTokenCount = 0
    /// Prompt tokens that were not computed; counted in `promptTokenCount` too.
    public var cachedTokenCount = 0

    public init() {}

    public static func += (left: inout UsageCounts, right: UsageCounts) {
        left.requestCount += right.requestCount
        left.promptTokenCount += right.promptTokenCount
        left.completionTokenCount += right.completionTokenCount
        left.cachedTokenCount += right.cachedTokenCount
    }
}

public struct UsageRow: Sendable, Equatable {
    public let key: UsageKey
    public let counts: UsageCounts
}

/// Which usage to sum up, and by what.
public struct UsageQuery: Sendable {
    public enum Dimension: String, Sendable, CaseIterable {
        case day, tenant, key, adapter
    }

    public var tenant: String?
    public var keyID: String?
    public var adapter: String?
    /// Nil for all; else these only.
    public var adapters: Set<String>?
    public var since: UTCDay?
    /// The last day.
    public var until: UTCDay?
    public var grouping = Set(Dimension.allCases)
    /// Where the page before ended.
    public var after: UsageKey?
    public var limit = 1000

    public init() {}
}

/// Counters of what tenants used, by day.
extension AdapterRegistry {
    /// Adds to the stored counters, in one transaction that is on disk when this returns.
    public func addUsage(_ usage: [UsageKey: UsageCounts]) async throws(RegistryError) {
        try await writer.addUsage(usage)
    }

    /// Sums, in the order of day, tenant, key and adapter.
    public func usage(_ query: UsageQuery) async throws(RegistryError) -> [UsageRow] {
        do {
            return try await core.database.usage(query)
        } catch {
            throw RegistryError.wrapping(error)
        }
    }

    /// Forgets the days before `day`.
    public func sweepUsage(before day: UTCDay) async throws(RegistryError) {
        try await writer.sweepUsage(before: day)
    }
}

extension RegistryWriter {
    fileprivate func addUsage(_ usage: [UsageKey: UsageCounts]) throws(RegistryError) {
        do {
            try core.database.transaction { db in
                for (key, counts) in usage { try RegistryDatabase.add(counts, to: key, db) }
            }
        } catch {
            throw RegistryError.wrapping(error)
        }
    }

    fileprivate func sweepUsage(before day: UTCDay) throws(RegistryError) {
        do {
            try core.database.transaction { db in
                try db.execute(sql: "DELETE FROM usage WHERE day < ?", arguments: [day.text])
            }
        } catch {
            throw RegistryError.wrapping(error)
        }
    }
}

extension RegistryDatabase {
    fileprivate static func add(
        _ counts: UsageCounts, to key: UsageKey, _ db: Database
    ) throws {
        try db.execute(
            sql: """
                INSERT INTO usage (day, tenant, keyID, adapter, requests, promptTokens,
                completionTokens, cachedTokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
                promptTokens = promptTokens + excluded.promptTokens,
                completionTokens = completionTokens + excluded.completionTokens,
                cachedTokens = cachedTokens + excluded.cachedTokens
                """,
            arguments: [
                key.day, key.tenant, key.keyID, key.adapter, counts.requestCount,
                counts.promptTokenCount, counts.completionTokenCount, counts.cachedTokenCount,
            ])
    }

    fileprivate func usage(_ query: UsageQuery) async throws -> [UsageRow] {
        /// A column, or the same text for all rows, by which they fall into one group.
        func column(_ name: String, _ dimension: UsageQuery.Dimension) -> String {
            query.grouping.contains(dimension) ? name : "''"
        }
        let columns = [
            column("day", .day), column("tenant", .tenant), column("keyID", .key),
            column("adapter", .adapter),
        ]
        let sql = """
            WITH sums (day, tenant, keyID, adapter, requests, prompt, completion, cached) AS (
                SELECT \(columns.joined(separator: ", ")), sum(requests), sum(promptTokens),
                sum(completionTokens), sum(cachedTokens) FROM usage
                WHERE (:tenant IS NULL OR tenant = :tenant)
                AND (:keyID IS NULL OR keyID = :keyID)
                AND (:adapter IS NULL OR adapter = :adapter)
                AND (:adapters IS NULL OR adapter IN (SELECT value FROM json_each(:adapters)))
                AND (:since IS NULL OR day >= :since) AND (:until IS NULL OR day <= :until)
                GROUP BY 1, 2, 3, 4)
            SELECT * FROM sums
            WHERE :afterDay IS NULL
            OR (day, tenant, keyID, adapter) > (:afterDay, :afterTenant, :afterKey, :afterAdapter)
            ORDER BY day, tenant, keyID, adapter LIMIT :limit
            """
        let arguments: StatementArguments = [
            "tenant": query.tenant, "keyID": query.keyID, "adapter": query.adapter,
            "adapters": try query.adapters.map(Self.list), "since": query.since?.text,
            "until": query.until?.text, "afterDay": query.after?.day,
            "afterTenant": query.after?.tenant, "afterKey": query.after?.keyID,
            "afterAdapter": query.after?.adapter, "limit": max(0, query.limit),
        ]
        return try await reading { db in
            try Row.fetchAll(db, sql: sql, arguments: arguments).map { row in
                var counts = UsageCounts()
                counts.requestCount = try row.value(of: "requests")
                counts.promptTokenCount = try row.value(of: "prompt")
                counts.completionTokenCount = try row.value(of: "completion")
                counts.cachedTokenCount = try row.value(of: "cached")
                let key = UsageKey(
                    day: try row.value(of: "day"), tenant: try row.value(of: "tenant"),
                    keyID: try row.value(of: "keyID"), adapter: try row.value(of: "adapter"))
                return UsageRow(key: key, counts: counts)
            }
        }
    }
}
