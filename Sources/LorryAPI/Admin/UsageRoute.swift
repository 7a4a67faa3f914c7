import Foundation
import HTTPTypes
import Hummingbird
import LorryRegistry

extension APIRouter {
    mutating func addUsageRoute(_ services: APIServices) {
        on(.get, "/admin/usage", .role(.admin)) { call in try await services.listUsage(call) }
    }
}

extension APIServices {
    /// Sums of what keys used. The shared tenant's keys see every tenant's, other keys their own; a
    /// key with a list of adapters sees these, and the base model where it sees its own tenant only.
    fileprivate func listUsage(_ call: Call) async throws -> Response {
        var query = UsageQuery()
        let tenant = call.principal.tenant
        query.tenant = call.query("tenant")
        if tenant != AdapterKey.sharedTenant {
            guard query.tenant.map({ $0 == tenant }) ?? true else {
                return Self.page([], next: nil)
            }
            query.tenant = tenant
        }
        query.keyID = call.query("key")
        query.adapter = call.query("adapter")
        query.adapters = call.principal.allowedAdapters.map {
            tenant == AdapterKey.sharedTenant ? $0 : $0.union([""])
        }
        query.since = try call.day("since")
        query.until = try call.day("until")
        query.grouping = try call.grouping()
        query.limit = try call.pageLimit(default: 1000)
        query.after = try call.usagePosition()
        // What was counted a moment ago is shown, too. Where it cannot be written, the log says so.
        try? await usage.flush()
        let rows = try await registry.usage(query)
        let next = rows.count == query.limit ? rows.last?.key.position : nil
        return Self.page(rows.map { JSON($0, query.grouping) }, next: next)
    }

    private static func page(_ rows: [JSON], next: String?) -> Response {
        .json(["usage": .array(rows), "next": .optional(next)])
    }
}

extension Call {
    fileprivate func day(_ name: String) throws(APIError) -> UTCDay? {
        guard let text = query(name) else { return nil }
        guard let day = UTCDay(text) else {
            throw .invalid(name, "\(name) must be a day of UTC such as 2026-11-21.")
        }
        return day
    }

    fileprivate func grouping() throws(APIError) -> Set<UsageQuery.Dimension> {
        guard let text = query("group") else { return Set(UsageQuery.Dimension.allCases) }
        var grouping: Set<UsageQuery.Dimension> = []
        for name in text.split(separator: ",") {
            guard let dimension = UsageQuery.Dimension(rawValue: String(name)) else {
                let names = UsageQuery.Dimension.allCases.map(\.rawValue).joined(separator: ", ")
                throw .invalid("group", "group may list \(names), got '\(name)'.")
            }
            grouping.insert(dimension)
        }
        return grouping
    }

    fileprivate func usagePosition() throws(APIError) -> UsageKey? {
        guard let text = query("after") else { return nil }
        let parts = text.split(separator: "/", maxSplits: 3, omittingEmptySubsequences: false)
            .map(String.init)
        guard parts.count == 4 else {
            throw .invalid("after", "after must be the next of the page before.")
        }
        return UsageKey(day: parts[0], tenant: parts[3], keyID: parts[1], adapter: parts[2])
    }
}

extension UsageKey {
    /// Where a page ended. Tenants stand last, since only their names may hold a slash.
    fileprivate var position: String { "\(day)/\(keyID)/\(adapter)/\(tenant)" }
}

extension JSON {
    /// What was not grouped by is left out; the base model's `adapter` is null.
    fileprivate init(_ row: UsageRow, _ grouping: Set<UsageQuery.Dimension>) {
        var members: [(String, JSON)] = []
        if grouping.contains(.day) { members.append(("day", .string(row.key.day))) }
        if grouping.contains(.tenant) { members.append(("tenant", .string(row.key.tenant))) }
        if grouping.contains(.key) { members.append(("key", .string(row.key.keyID))) }
        if grouping.contains(.adapter) {
            let name = row.key.adapter
            members.append(("adapter", name.isEmpty ? .null : .string(name)))
        }
        members += [
            ("requests", .integer(row.counts.requestCount)),
            ("promptTokens", .integer(row.counts.promptTokenCount)),
            ("completionTokens", .integer(row.counts.completionTokenCount)),
            ("cachedTokens", .integer(row.counts.cachedTokenCount)),
        ]
        self = .object(members)
    }
}
