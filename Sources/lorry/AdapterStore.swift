import Foundation
import LorryRegistry
import NIOHTTP1

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
        """
    }
}

/// The adapters of a server or of a state directory.
protocol AdapterStore: Sendable {
    func list() async throws -> [ListedAdapter]
    func show(_ name: String) async throws -> ListedAdapter
    func add(_ name: String, _ folder: URL) async throws -> (ListedAdapter, isNew: Bool)
    func remove(_ name: String) async throws
    func setPinned(_ name: String, _ isPinned: Bool) async throws
}

/// A running server's, through its admin API.
struct RemoteAdapters: AdapterStore {
    let client: ServerClient

    func path(_ name: String, _ action: String = "") -> String {
        let allowed = CharacterSet.urlPathAllowed.subtracting(["/"])
        let encoded = name.addingPercentEncoding(withAllowedCharacters: allowed) ?? name
        return "/admin/adapters/\(encoded)\(action)"
    }

    func list() async throws -> [ListedAdapter] {
        struct Page: Decodable {
            let adapters: [ListedAdapter]
            let next: String?
        }
        var all: [ListedAdapter] = []
        var after = ""
        while true {
            let page = try await client.send(.init(path: "/admin/adapters?limit=1000\(after)"))
                .checked().decoded(Page.self)
            all += page.adapters
            guard let next = page.next else { return all }
            after = "&after=\(next)"
        }
    }

    func show(_ name: String) async throws -> ListedAdapter {
        try await client.send(.init(path: path(name))).checked().decoded(ListedAdapter.self)
    }

    func add(_ name: String, _ folder: URL) async throws -> (ListedAdapter, isNew: Bool) {
        let archive = try TarStream(folder: folder, names: AdapterFile.stored)
        var request = ServerClient.Request(method: .PUT, path: path(name))
        request.headers = [("content-type", "application/x-tar")]
        let total = archive.byteCount
        request.body = (
            total,
            { writer in
                var progress = UploadProgress(name: name, byteCount: total)
                try await archive.write { bytes in
                    try await writer.write(bytes)
                    progress.advance(bytes.count)
                }
                progress.end()
            }
        )
        let answer = try await client.send(request).checked()
        return (try answer.decoded(ListedAdapter.self), answer.status == 201)
    }

    func remove(_ name: String) async throws {
        _ = try await client.send(.init(method: .DELETE, path: path(name))).checked()
    }

    func setPinned(_ name: String, _ isPinned: Bool) async throws {
        let request = ServerClient.Request(
            method: .POST, path: path(name, isPinned ? "/pin" : "/unpin"))
        _ = try await client.send(request).checked()
    }
}

/// A state directory's, while no server uses it.
struct LocalAdapters: AdapterStore {
    let registry: AdapterRegistry
    private let actor = "lorry adapters"

    init(registry: AdapterRegistry) { self.registry = registry }

    private func listed(_ record: AdapterRecord) -> ListedAdapter {
        ListedAdapter(
            name: record.name, version: record.version.digest, method: record.method,
            rank: record.rank, targets: record.targets, byteCount: record.byteCount,
            tenant: record.tenant, created: record.created.formatted(.iso8601),
            state: record.state.rawValue, pinned: record.pinned)
    }

    func list() async throws -> [ListedAdapter] {
        var query = ListQuery()
        query.limit = Int.max
        return registry.list(query).adapters.map(listed)
    }

    func show(_ name: String) async throws -> ListedAdapter {
        listed(try registry.record(name: name))
    }

    func add(_ name: String, _ folder: URL) async throws -> (ListedAdapter, isNew: Bool) {
        let upload = try registry.makeUpload()
        do {
            try await upload.copyFolder(folder)
        } catch {
            await upload.discard()
            throw error
        }
        let outcome = try await registry.add(name: name, from: upload, actor: actor)
        return (listed(outcome.record), outcome.created)
    }

    func remove(_ name: String) async throws {
        try await registry.remove(name: name, actor: actor)
    }

    func setPinned(_ name: String, _ isPinned: Bool) async throws {
        if isPinned {
            try await registry.pin(name: name, actor: actor)
        } else {
            try await registry.unpin(name: name, actor: actor)
        }
    }
}

/// Adapters in columns.
struct AdapterTable {
    private let rows: [[String]]

    init(_ adapters: [ListedAdapter]) {
        rows =
            [["NAME", "METHOD", "RANK", "MEMORY", "STATE", "TENANT", "VERSION"]]
            + adapters.map { adapter in
                [
                    adapter.name, adapter.method, "\(adapter.rank)",
                    ByteCountText.text(adapter.byteCount),
                    adapter.state + (adapter.pinned ? ", pinned" : ""), adapter.tenant,
                    String(adapter.version.prefix(12)),
                ]
            }
    }

    func print() {
        guard rows.count > 1 else { return Swift.print("There is no adapter.") }
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        for row in rows {
            let cells = zip(row, widths).map { text, width in
                text + String(repeating: " ", count: width - text.count)
            }
            Swift.print(cells.joined(separator: "  ").trimmingCharacters(in: .whitespaces))
        }
    }
}

enum ByteCountText {
    static func text(_ byteCount: Int) -> String {
        var value = Double(byteCount)
        for unit in ["B", "KiB", "MiB"] {
            if value < 1024 {
                return String(format: unit == "B" ? "%.0f %@" : "%.1f %@", value, unit)
            }
            value /= 1024
        }
        return String(format: "%.1f GiB", value)
    }
}

/// Shows how far an upload is, on standard error, where that is a terminal.
struct UploadProgress {
    private let name: String
    private let byteCount: Int
    private var sent = 0
    private var shown = -1
    private let isShown = isatty(STDERR_FILENO) == 1

    init(name: String, byteCount: Int) {
        self.name = name
        self.byteCount = byteCount
    }

    mutating func advance(_ count: Int) {
        sent += count
        let percent = byteCount == 0 ? 100 : sent * 100 / byteCount
        guard isShown, percent != shown else { return }
        shown = percent
        let filled = percent * 30 / 100
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 30 - filled)
        FileHandle.standardError.write(Data("\r\(name) \(bar) \(percent) %".utf8))
    }

    func end() {
        if isShown { FileHandle.standardError.write(Data("\r\u{1B}[2K".utf8)) }
    }
}
