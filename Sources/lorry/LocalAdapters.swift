import Foundation
import LorryRegistry

/// The adapters of a state directory, while no server uses it.
struct LocalAdapters: AdapterStore {
    let registry: AdapterRegistry
    let tenant: String
    private let actor = "lorry adapters"

    init(registry: AdapterRegistry, tenant: String) {
        self.registry = registry
        self.tenant = tenant
    }

    private func listed(_ record: AdapterRecord) -> ListedAdapter {
        ListedAdapter(
            name: record.name, version: record.version.digest, method: record.method,
            rank: record.rank, targets: record.targets, byteCount: record.byteCount,
            tenant: record.tenant, created: record.created.formatted(.iso8601),
            state: record.state.rawValue, pinned: record.pinned, aliases: record.aliases)
    }

    private func listed(_ alias: AdapterAlias) -> ListedAlias {
        ListedAlias(
            name: alias.name, adapter: alias.adapter, version: alias.version.digest,
            fixed: alias.isFixed, tenant: alias.tenant)
    }

    /// The whole directory's, unless a tenant is named that is not the shared one.
    private var listedTenants: Set<String>? {
        tenant == AdapterKey.sharedTenant ? nil : [tenant]
    }

    func list(_ filter: AdapterFilter) async throws -> [ListedAdapter] {
        var query = ListQuery()
        query.limit = Int.max
        query.tenants = listedTenants
        query.namePrefix = filter.prefix
        query.method = filter.method
        query.state = try filter.state.map { text in
            guard let state = AdapterState(rawValue: text) else {
                let states = AdapterState.allCases.map(\.rawValue).joined(separator: ", ")
                throw ClientError("--state: '\(text)' is none of \(states)")
            }
            return state
        }
        return registry.list(query).adapters.map(listed)
    }

    func show(_ name: String) async throws -> ListedAdapter {
        listed(try registry.record(name: name, tenant: tenant))
    }

    func versions(_ name: String) async throws -> [ListedVersion] {
        try registry.versions(name: name, tenant: tenant).map { version in
            ListedVersion(
                version: version.version.digest, method: version.method, rank: version.rank,
                created: version.created.formatted(.iso8601), current: version.current,
                damaged: version.damaged)
        }
    }

    func add(_ name: String, _ folder: URL) async throws -> (ListedAdapter, isNew: Bool) {
        let upload = try registry.makeUpload()
        do {
            try await upload.copyFolder(folder)
        } catch {
            await upload.discard()
            throw error
        }
        let outcome = try await registry.add(
            name: name, tenant: tenant, from: upload, actor: actor)
        return (listed(outcome.record), outcome.created)
    }

    func remove(_ name: String) async throws {
        try await registry.remove(name: name, tenant: tenant, actor: actor)
    }

    func apply(_ change: AdapterSwitch, _ name: String) async throws -> ListedAdapter {
        let record =
            switch change {
            case .pin: try await registry.pin(name: name, tenant: tenant, actor: actor)
            case .unpin: try await registry.unpin(name: name, tenant: tenant, actor: actor)
            case .disable: try await registry.disable(name: name, tenant: tenant, actor: actor)
            case .enable: try await registry.enable(name: name, tenant: tenant, actor: actor)
            }
        return listed(record)
    }

    func rollBack(_ name: String, to version: String?) async throws -> ListedAdapter {
        listed(
            try await registry.rollback(name: name, tenant: tenant, to: version, actor: actor))
    }

    func aliases() async throws -> [ListedAlias] {
        registry.aliases(of: listedTenants).map(listed)
    }

    func setAlias(_ alias: String, to adapter: String) async throws -> ListedAlias {
        listed(
            try await registry.setAlias(name: alias, tenant: tenant, to: adapter, actor: actor)
                .alias)
    }

    func removeAlias(_ alias: String) async throws {
        try await registry.removeAlias(name: alias, tenant: tenant, actor: actor)
    }
}
