import Foundation
import LorryRegistry
import NIOHTTP1

/// The adapters of a running server, through its admin API.
struct RemoteAdapters: AdapterStore {
    let client: ServerClient

    func path(_ name: String, _ action: String = "") -> String {
        "/admin/adapters/\(Self.encoded(name))\(action)"
    }

    private static func encoded(_ text: String) -> String {
        let allowed = CharacterSet.urlPathAllowed.subtracting(["/", "+", "&", "="])
        return text.addingPercentEncoding(withAllowedCharacters: allowed) ?? text
    }

    func list(_ filter: AdapterFilter) async throws -> [ListedAdapter] {
        struct Page: ListPage {
            let adapters: [ListedAdapter]
            let next: String?
            var entries: [ListedAdapter] { adapters }
        }
        let filters = [
            ("prefix", filter.prefix), ("method", filter.method), ("state", filter.state),
        ]
        let query = filters.compactMap { name, value in
            value.map { "&\(name)=\(Self.encoded($0))" }
        }
        return try await all(Page.self, "/admin/adapters", query.joined())
    }

    /// The entries of every page of a list.
    private func all<Page: ListPage>(
        _: Page.Type, _ path: String, _ query: String = ""
    ) async throws -> [Page.Entry] {
        var all: [Page.Entry] = []
        var after = ""
        while true {
            let page = try await client.send(.init(path: "\(path)?limit=1000\(query)\(after)"))
                .checked().decoded(Page.self)
            all += page.entries
            guard let next = page.next else { return all }
            after = "&after=\(Self.encoded(next))"
        }
    }

    func show(_ name: String) async throws -> ListedAdapter {
        try await answer(.init(path: path(name)))
    }

    func versions(_ name: String) async throws -> [ListedVersion] {
        struct Versions: Decodable { let versions: [ListedVersion] }
        let all: Versions = try await answer(.init(path: path(name, "/versions")))
        return all.versions
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
            }
        )
        defer { UploadProgress(name: name, byteCount: total).end() }
        let answer = try await client.send(request)
        return (try answer.checked().decoded(ListedAdapter.self), answer.status == 201)
    }

    func remove(_ name: String) async throws {
        _ = try await client.send(.init(method: .DELETE, path: path(name))).checked()
    }

    func apply(_ change: AdapterSwitch, _ name: String) async throws -> ListedAdapter {
        try await answer(.init(method: .POST, path: path(name, "/\(change.rawValue)")))
    }

    func rollBack(_ name: String, to version: String?) async throws -> ListedAdapter {
        try await answer(.json(.POST, path(name, "/rollback"), ["version": version]))
    }

    func aliases() async throws -> [ListedAlias] {
        struct Page: ListPage {
            let aliases: [ListedAlias]
            let next: String?
            var entries: [ListedAlias] { aliases }
        }
        return try await all(Page.self, "/admin/aliases")
    }

    func setAlias(_ alias: String, to adapter: String) async throws -> ListedAlias {
        try await answer(
            .json(.PUT, "/admin/aliases/\(Self.encoded(alias))", ["adapter": adapter]))
    }

    func removeAlias(_ alias: String) async throws {
        let path = "/admin/aliases/\(Self.encoded(alias))"
        _ = try await client.send(.init(method: .DELETE, path: path)).checked()
    }

    private func answer<Value: Decodable>(_ request: ServerClient.Request) async throws -> Value {
        try await client.send(request).checked().decoded(Value.self)
    }
}

/// One page of a list of the admin API.
private protocol ListPage: Decodable {
    associatedtype Entry
    var entries: [Entry] { get }
    var next: String? { get }
}
