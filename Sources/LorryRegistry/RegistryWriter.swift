import Foundation

/// A checked upload with the name that it is to get.
struct Addition: Sendable {
    let key: AdapterKey
    let staged: StagedVersion
    var expecting = Precondition.none
    var allowance = TenantAllowance.unlimited
    let actor: String
}

/// Makes all changes, one after another on the registry's queue: store first, then rows, then
/// memory. No method awaits anything, so each is one unbroken turn.
actor RegistryWriter {
    let core: RegistryCore
    /// Moved into the store for rows that may come back with a crash; see
    /// `RegistryDatabase.commit`.
    private var unsettled: Set<AdapterVersionID> = []

    nonisolated var unownedExecutor: UnownedSerialExecutor {
        core.changes.asUnownedSerialExecutor()
    }

    init(_ core: RegistryCore) { self.core = core }

    func close() { core.close() }

    /// Moves each version into the store and makes it its name's current one, in one commit.
    ///
    /// Staged folders that are not needed are removed; on an error all of them are left to the
    /// caller or to the next start.
    func add(_ additions: [Addition]) throws(RegistryError) -> [AddOutcome] {
        try turn {
            for addition in additions {
                try core.checkNoAlias(addition.key)
                let current = core.withContents { $0.names[addition.key]?.current.version }
                try addition.expecting.check(current, of: addition.key)
                try checkAllowance(of: addition)
            }
            let moved = try install(additions.map(\.staged))
            do {
                return try register(additions, moved: moved)
            } catch {
                giveUp(moved)
                throw error
            }
        }
    }

    /// Asked in the turn that makes the change, so that no two uploads share the last room.
    private func checkAllowance(of addition: Addition) throws(RegistryError) {
        guard addition.allowance != .unlimited else { return }
        let staged = addition.staged
        let (before, holdings) = core.withContents {
            ($0.names[addition.key], $0.holdings[addition.key.tenant])
        }
        var after =
            before ?? NameEntry(key: addition.key, version: staged.id, created: .distantPast)
        after.activate(
            staged.id, created: .distantPast, keeping: core.configuration.maxVersionsPerName)
        // Any version but the new one is held already, so its size is known.
        try (holdings ?? TenantHoldings()).check(
            before, with: after,
            byteCount: { _ in staged.files.reduce(0) { $0 + $1.byteCount } }, addition.allowance)
    }

    /// Writes an audit entry that concerns no adapter.
    func note(_ audit: RegistryChange.Audit, tenant: String) throws(RegistryError) {
        try turn {
            let key = AdapterKey(name: "", tenant: tenant)
            core.feed.publish([try core.database.note(audit, key)])
        }
    }

    func remove(
        _ key: AdapterKey, expecting: Precondition, actor: String
    ) throws(RegistryError) -> AdapterRecord {
        try turn {
            let (entry, record) = try found(key)
            try expecting.check(record.version, of: key)
            guard entry.aliases.isEmpty else {
                let aliases = entry.aliases.keys.sorted().map(quoted).joined(separator: ", ")
                throw RegistryError(
                    .conflict, "\(key) is what \(aliases) stands for; remove or move that first")
            }
            try commit([
                RegistryChange(
                    key: key, before: entry, after: nil,
                    audit: .init(actor: actor, action: .remove, version: record.version))
            ])
            return record
        }
    }

    /// Changes a name's flags; writes nothing if they are so already.
    func update(
        _ key: AdapterKey, action: RegistryEvent.Action,
        allowance: TenantAllowance = .unlimited, actor: String,
        _ body: @Sendable (inout NameEntry) -> Void
    ) throws(RegistryError) -> AdapterRecord {
        try turn {
            let (entry, record) = try found(key)
            var after = entry
            body(&after)
            if after == entry { return record }
            if after.isPinned, !entry.isPinned {
                let holdings = core.withContents { $0.holdings[key.tenant] }
                try (holdings ?? TenantHoldings()).checkNewPin(key, allowance)
            }
            try commit([
                RegistryChange(
                    key: key, before: entry, after: after,
                    audit: .init(actor: actor, action: action, version: record.version))
            ])
            return try found(key).record
        }
    }

    /// - Parameter prefix: a version's first hex digits, or nil for the one served before.
    func rollBack(
        _ key: AdapterKey, to prefix: String?, expecting: Precondition, actor: String
    ) throws(RegistryError) -> AdapterRecord {
        try turn {
            let (entry, record) = try found(key)
            try expecting.check(record.version, of: key)
            let target = try rollbackTarget(entry, prefix)
            if let problem = core.withContents({ $0.damage[target] }) {
                throw RegistryError(.damaged, "version \(target) of \(key) is damaged: \(problem)")
            }
            if let problem = core.withContents({ $0.misfits[target] }) {
                throw RegistryError.misfit(key.name, problem)
            }
            var after = entry
            after.activate(
                target, created: RegistryDatabase.now(),
                keeping: core.configuration.maxVersionsPerName)
            try commit([
                RegistryChange(
                    key: key, before: entry, after: after,
                    audit: .init(
                        actor: actor, action: .rollback, version: target,
                        detail: "from \(record.version)"))
            ])
            return try found(key).record
        }
    }

    /// Notes that a version's files are not what was stored; it is not served from now on.
    func markDamaged(_ version: AdapterVersionID, problem: String, actor: String)
        throws(RegistryError)
    {
        try turn {
            let keys = core.withContents { contents in
                contents.damage[version] = problem
                return contents.names.values.filter { $0.contains(version) }
            }
            try commit(
                keys.map {
                    RegistryChange(
                        key: $0.key, before: $0, after: $0,
                        audit: .init(
                            actor: actor, action: .damage, version: version, detail: problem))
                })
        }
    }

    func turn<Result>(_ body: () throws -> Result) throws(RegistryError) -> Result {
        do { return try body() } catch { throw RegistryError.wrapping(error) }
    }

    func found(
        _ key: AdapterKey
    ) throws(RegistryError) -> (entry: NameEntry, record: AdapterRecord) {
        let found = core.withContents { ($0.names[key], $0.record(key)) }
        guard let entry = found.0, let record = found.1 else {
            throw core.withContents { $0.missing(key) }
        }
        return (entry, record)
    }

    private func rollbackTarget(
        _ entry: NameEntry, _ prefix: String?
    ) throws(RegistryError) -> AdapterVersionID {
        guard let prefix else {
            guard let previous = entry.history.dropLast().last else {
                throw RegistryError(.conflict, "\(entry.key) has no earlier version")
            }
            return previous.version
        }
        let target = try entry.past(withPrefix: prefix).version
        guard target != entry.current.version else {
            throw RegistryError(.conflict, "\(entry.key) is at version \(target) already")
        }
        return target
    }
}

/// The steps of a change. Their order is what a crash at any moment depends on.
extension RegistryWriter {
    /// Moves what the store lacks into it and makes the moves durable; returns what was moved.
    private func install(_ staged: [StagedVersion]) throws -> Set<AdapterVersionID> {
        var moved: Set<AdapterVersionID> = []
        do {
            try install(staged, &moved)
            return moved
        } catch {
            giveUp(moved)
            throw error
        }
    }

    /// Takes versions out of the store again that got no row.
    private func giveUp(_ moved: Set<AdapterVersionID>) {
        guard !core.database.mayComeBack else { return unsettled.formUnion(moved) }
        for version in moved { core.throwAway(version) }
    }

    private func install(
        _ staged: [StagedVersion], _ moved: inout Set<AdapterVersionID>
    ) throws {
        let files = core.files
        var parents: Set<String> = []
        for version in staged {
            let target = core.state.storeFolder(of: version.id)
            let known = core.withContents { $0.versions[version.id]?.files } ?? version.files
            if try files.kind(of: target) != nil {
                if try files.sizeProblem(known, in: target) == nil, !isDamaged(version.id) {
                    try files.removeTree(version.path)
                    continue
                }
                try core.discardFolder(target)
            }
            let parent = core.state.storeParent(of: version.id)
            if try files.kind(of: parent) == nil {
                try files.createDirectory(parent)
                parents.insert(core.state.store)
            }
            try files.rename(version.path, to: target)
            parents.insert(parent)
            parents.insert(core.state.staging)
            moved.insert(version.id)
        }
        for parent in parents.sorted() { try files.syncDirectory(parent) }
    }

    private func isDamaged(_ version: AdapterVersionID) -> Bool {
        core.withContents { $0.damage[version] != nil }
    }

    private func register(
        _ additions: [Addition], moved: Set<AdapterVersionID>
    ) throws -> [AddOutcome] {
        let now = RegistryDatabase.now()
        var changes: [RegistryChange] = []
        var created: [Bool] = []
        for addition in additions {
            let staged = addition.staged
            let (before, isStored) = core.withContents {
                ($0.names[addition.key], $0.versions[staged.id] != nil)
            }
            created.append(!(before?.contains(staged.id) ?? false))
            let heals = moved.contains(staged.id)
            if before?.current.version == staged.id && !heals { continue }
            var after =
                before ?? NameEntry(key: addition.key, version: staged.id, created: now)
            after.activate(
                staged.id, created: now, keeping: core.configuration.maxVersionsPerName)
            let stored = StoredVersion(
                id: staged.id, description: staged.description, files: staged.files, created: now)
            changes.append(
                RegistryChange(
                    key: addition.key, before: before, after: after,
                    stored: heals || !isStored ? stored : nil,
                    audit: .init(actor: addition.actor, action: .add, version: staged.id)))
        }
        try commit(changes)
        return try zip(additions, created).map { addition, created in
            AddOutcome(
                record: try found(addition.key).record, created: created,
                ignoredFiles: addition.staged.ignored)
        }
    }

    func commit(_ changes: [RegistryChange]) throws {
        if changes.isEmpty { return }
        try core.state.checkInPlace()
        try core.files.willPerform(.commitRows)
        let events = try core.database.commit(changes)
        try core.files.willPerform(.rowsCommitted)
        let unused = core.withContents { $0.apply(changes) }
        core.feed.publish(events)
        for version in unused { core.throwAway(version) }
        for version in unsettled { core.throwAway(version) }
        unsettled = []
    }
}

extension RegistryError {
    static func noAdapter(_ key: AdapterKey) -> RegistryError { noAdapter(named: key.name) }

    /// What is said of a name that there is not, and of one that somebody may not know of.
    public static func noAdapter(named name: String) -> RegistryError {
        RegistryError(.notFound, "there is no adapter \(quoted(name))")
    }
}

extension NameEntry {
    /// The version in the history that starts with these hex digits.
    /// - Throws: `invalid` if several do or the text is no prefix, `notFound` if none does.
    func past(withPrefix text: String) throws(RegistryError) -> Past {
        let prefix = try VersionedName.checkedPrefix(text)
        let matches = history.filter { $0.version.digest.hasPrefix(prefix) }
        guard let match = matches.first else {
            throw RegistryError(.notFound, "\(quoted(key.name)) has no version \(prefix)")
        }
        guard matches.count == 1 else {
            throw RegistryError(
                .invalid, "\(quoted(key.name)) has several versions that start with \(prefix)")
        }
        return match
    }
}
