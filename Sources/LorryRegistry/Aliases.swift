import Foundation

/// Another name for an adapter: whoever asks for the alias gets the adapter.
public struct AdapterAlias: Sendable, Equatable {
    public let name: String
    public let tenant: String
    /// The adapter's name, of the same tenant.
    public let adapter: String
    /// The version that it stands for now.
    public let version: AdapterVersionID
    /// It stays at that version, whatever becomes the adapter's current one.
    public let isFixed: Bool
    public let created: Date

    public var key: AdapterKey { AdapterKey(name: name, tenant: tenant) }
    /// What it stands for, as it was set: `name`, or `name@version`.
    public var target: String { isFixed ? "\(adapter)@\(version.digest)" : adapter }
}

extension AdapterRegistry {
    /// Aliases sorted by name, then tenant.
    /// - Parameter tenants: nil for all.
    public func aliases(of tenants: Set<String>? = nil) -> [AdapterAlias] {
        core.withContents { contents in
            contents.aliases.keys
                .filter { tenants?.contains($0.tenant) ?? true }
                .sorted().compactMap(contents.alias)
        }
    }

    /// - Throws: `notFound`.
    public func alias(
        name: String, tenant: String = AdapterKey.sharedTenant
    ) throws(RegistryError) -> AdapterAlias {
        let key = AdapterKey(name: name, tenant: tenant)
        guard let alias = core.withContents({ $0.alias(key) }) else { throw .noAlias(key) }
        return alias
    }

    /// Makes a name stand for an adapter of the same tenant, from the next request on.
    ///
    /// - Parameter target: `name`, which follows the adapter's current version, or `name@version`,
    ///   which stays at that version and keeps it in the adapter's history.
    /// - Returns: the alias, and whether it is new.
    /// - Throws: `conflict` where the name is an adapter's or the base model's, `notFound` where
    ///   there is no such adapter or version, `invalid`, `preconditionFailed`, `storage`.
    @discardableResult
    public func setAlias(
        name: String, tenant: String = AdapterKey.sharedTenant, to target: String,
        expecting: Precondition = .none, actor: String
    ) async throws(RegistryError) -> (alias: AdapterAlias, created: Bool) {
        let key = AdapterKey(name: name, tenant: tenant)
        try checkName(key)
        return try await writer.setAlias(
            key, to: try VersionedName(target), expecting: expecting, actor: actor)
    }

    /// - Returns: the alias as it was.
    /// - Throws: `notFound`, `preconditionFailed`, `storage`.
    @discardableResult
    public func removeAlias(
        name: String, tenant: String = AdapterKey.sharedTenant, expecting: Precondition = .none,
        actor: String
    ) async throws(RegistryError) -> AdapterAlias {
        try await writer.removeAlias(
            AdapterKey(name: name, tenant: tenant), expecting: expecting, actor: actor)
    }
}

extension RegistryWriter {
    fileprivate func setAlias(
        _ key: AdapterKey, to target: VersionedName, expecting: Precondition, actor: String
    ) throws(RegistryError) -> (alias: AdapterAlias, created: Bool) {
        try turn {
            let before = core.withContents { $0.alias(key) }
            try expecting.check(before, of: key)
            guard core.withContents({ $0.names[key] }) == nil else {
                throw RegistryError(.conflict, "\(key) is an adapter and cannot be an alias")
            }
            let (entry, record) = try found(AdapterKey(name: target.name, tenant: key.tenant))
            let past = try target.versionPrefix.map { prefix throws(RegistryError) in
                try entry.past(withPrefix: prefix)
            }
            if let before, before.adapter == target.name,
                (before.isFixed ? before.version : nil) == past?.version
            {
                return (before, false)
            }
            let maxCount = core.configuration.maxAliasesPerName
            guard entry.aliases[key.name] != nil || entry.aliases.count < maxCount else {
                throw RegistryError(.conflict, "\(entry.key) has \(maxCount) aliases already")
            }
            var after = entry
            after.aliases[key.name] = NameEntry.Alias(
                version: past?.version, created: before?.created ?? RegistryDatabase.now())
            var changes: [RegistryChange] = []
            if let before, before.adapter != target.name {
                // The old target's rows go first: an alias has one row.
                changes.append(try removal(of: before, actor: actor))
            }
            changes.append(
                RegistryChange(
                    key: entry.key, before: entry, after: after,
                    audit: .init(
                        actor: actor, action: .alias, version: past?.version ?? record.version,
                        detail: key.name)))
            try commit(changes)
            guard let alias = core.withContents({ $0.alias(key) }) else {
                throw RegistryError.noAlias(key)
            }
            return (alias, before == nil)
        }
    }

    fileprivate func removeAlias(
        _ key: AdapterKey, expecting: Precondition, actor: String
    ) throws(RegistryError) -> AdapterAlias {
        try turn {
            guard let before = core.withContents({ $0.alias(key) }) else {
                throw RegistryError.noAlias(key)
            }
            try expecting.check(before, of: key)
            try commit([try removal(of: before, actor: actor)])
            return before
        }
    }

    private func removal(of alias: AdapterAlias, actor: String) throws -> RegistryChange {
        let (entry, _) = try found(AdapterKey(name: alias.adapter, tenant: alias.tenant))
        var after = entry
        after.aliases[alias.name] = nil
        return RegistryChange(
            key: entry.key, before: entry, after: after,
            audit: .init(
                actor: actor, action: .unalias, version: alias.version, detail: alias.name))
    }
}

extension RegistryContents {
    func alias(_ key: AdapterKey) -> AdapterAlias? {
        guard let entry = aliases[key].flatMap({ names[$0] }),
            let alias = entry.aliases[key.name]
        else { return nil }
        return AdapterAlias(
            name: key.name, tenant: key.tenant, adapter: entry.key.name,
            version: alias.version ?? entry.current.version, isFixed: alias.version != nil,
            created: alias.created)
    }

    /// Why there is no adapter of that name.
    func missing(_ key: AdapterKey) -> RegistryError {
        guard let alias = alias(key) else { return .noAdapter(key) }
        return RegistryError(
            .notFound,
            "there is no adapter \(quoted(key.name)): it is an alias of \(quoted(alias.target))")
    }
}

extension RegistryCore {
    /// - Throws: `conflict` where the name is an alias.
    func checkNoAlias(_ key: AdapterKey) throws(RegistryError) {
        guard let alias = withContents({ $0.alias(key) }) else { return }
        throw RegistryError(
            .conflict,
            "\(key) is an alias of \(quoted(alias.target)); change that adapter, or remove the alias"
        )
    }
}

extension Precondition {
    fileprivate func check(_ current: AdapterAlias?, of key: AdapterKey) throws(RegistryError) {
        try check(
            current?.target, of: key,
            found: current.map { "it stands for \(quoted($0.target))" } ?? "there is no such alias")
    }
}

extension RegistryError {
    fileprivate static func noAlias(_ key: AdapterKey) -> RegistryError {
        noAlias(named: key.name)
    }

    /// What is said of an alias that there is not, and of one that somebody may not know of.
    public static func noAlias(named name: String) -> RegistryError {
        RegistryError(.notFound, "there is no alias \(quoted(name))")
    }
}
