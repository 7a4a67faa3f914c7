import Foundation
import LorryBench

/// An adapter as the commands show it.
struct ListedAdapter: Codable, Sendable {
    let name: String
    let version: String
    let method: String
    let rank: Int
    let targets: [String]
    let byteCount: Int
    let tenant: String
    let created: String
    let state: String
    let pinned: Bool
    let aliases: [String]

    var line: String {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return String(decoding: try encoder.encode(self), as: UTF8.self)
        }
    }

    var details: String {
        """
        name     \(name)
        version  \(version)
        method   \(method), rank \(rank)
        targets  \(targets.joined(separator: " "))
        memory   \(ByteCountText.text(byteCount))
        tenant   \(tenant)
        created  \(created)
        state    \(state)\(pinned ? ", pinned" : "")
        aliases  \(aliases.isEmpty ? "none" : aliases.joined(separator: " "))
        """
    }
}

/// A version of an adapter as the commands show it.
struct ListedVersion: Codable, Sendable {
    let version: String
    let method: String
    let rank: Int
    let created: String
    let current: Bool
    let damaged: Bool
}

/// An alias as the commands show it.
struct ListedAlias: Codable, Sendable {
    let name: String
    let adapter: String
    let version: String
    let fixed: Bool
    let tenant: String
}

/// Which adapters to list; nil for any.
struct AdapterFilter: Sendable {
    var prefix: String?
    var method: String?
    var state: String?
}

/// The adapters of a server or of a state directory.
protocol AdapterStore: Sendable {
    func list(_ filter: AdapterFilter) async throws -> [ListedAdapter]
    func show(_ name: String) async throws -> ListedAdapter
    func versions(_ name: String) async throws -> [ListedVersion]
    func add(_ name: String, _ folder: URL) async throws -> (ListedAdapter, isNew: Bool)
    func remove(_ name: String) async throws
    func apply(_ change: AdapterSwitch, _ name: String) async throws -> ListedAdapter
    /// - Parameter version: nil for the one served before.
    func rollBack(_ name: String, to version: String?) async throws -> ListedAdapter
    func aliases() async throws -> [ListedAlias]
    func setAlias(_ alias: String, to adapter: String) async throws -> ListedAlias
    func removeAlias(_ alias: String) async throws
}

/// Adapters, versions and aliases in columns.
extension TextTable {
    static func of(_ adapters: [ListedAdapter]) -> TextTable {
        TextTable(
            ["NAME", "METHOD", "RANK", "MEMORY", "STATE", "TENANT", "VERSION"],
            adapters.map { adapter in
                [
                    adapter.name, adapter.method, "\(adapter.rank)",
                    ByteCountText.text(adapter.byteCount),
                    adapter.state + (adapter.pinned ? ", pinned" : ""), adapter.tenant,
                    String(adapter.version.prefix(12)),
                ]
            })
    }

    static func of(_ versions: [ListedVersion]) -> TextTable {
        TextTable(
            ["VERSION", "METHOD", "RANK", "CREATED", ""],
            versions.map { version in
                let notes = [
                    version.current ? "current" : nil, version.damaged ? "damaged" : nil,
                ]
                return [
                    String(version.version.prefix(12)), version.method, "\(version.rank)",
                    version.created, notes.compactMap { $0 }.joined(separator: ", "),
                ]
            })
    }

    static func of(_ aliases: [ListedAlias]) -> TextTable {
        TextTable(
            ["ALIAS", "ADAPTER", "VERSION", "TENANT"],
            aliases.map { alias in
                [
                    alias.name, alias.adapter,
                    alias.version.prefix(12) + (alias.fixed ? ", fixed" : ""), alias.tenant,
                ]
            })
    }

    private init(_ titles: [String], _ rows: [[String]]) {
        self.init(titles.map { ($0, .left) })
        for row in rows { add(row) }
    }
}
