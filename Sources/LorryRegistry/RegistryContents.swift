import Foundation
import LorryModel

/// A name with its versions.
package struct NameEntry: Sendable, Equatable {
    package struct Past: Sendable, Equatable {
        package let version: AdapterVersionID
        package let created: Date
    }

    package struct Alias: Sendable, Equatable {
        /// A version in the history that it stands for; nil for whichever is current.
        package let version: AdapterVersionID?
        package let created: Date
    }

    package let key: AdapterKey
    package var isDisabled = false
    package var isPinned = false
    /// Other names for it, of the same tenant.
    package var aliases: [String: Alias] = [:]
    /// In the order in which they were last put into service, so the last one is current and the
    /// one before it is what a rollback returns to. Never empty.
    package private(set) var history: [Past]

    package init(key: AdapterKey, version: AdapterVersionID, created: Date) {
        self.key = key
        history = [Past(version: version, created: created)]
    }

    /// Nil for an empty history, which only a damaged database can hold.
    init?(
        key: AdapterKey, isDisabled: Bool, isPinned: Bool, history: [Past],
        aliases: [String: Alias]
    ) {
        guard !history.isEmpty else { return nil }
        self.aliases = aliases
        self.key = key
        self.isDisabled = isDisabled
        self.isPinned = isPinned
        self.history = history
    }

    package var current: Past { history[history.count - 1] }

    func contains(_ version: AdapterVersionID) -> Bool {
        history.contains { $0.version == version }
    }

    /// Makes a version current; a known one keeps its date. Of more than `maxCount` versions those
    /// unused for longest go, but none that an alias stands for.
    mutating func activate(_ version: AdapterVersionID, created: Date, keeping maxCount: Int) {
        let known = history.firstIndex { $0.version == version }.map { history.remove(at: $0) }
        history.append(known ?? Past(version: version, created: created))
        var excess = history.count - max(1, maxCount)
        let held = Set(aliases.values.compactMap(\.version)).union([version])
        history.removeAll { past in
            guard excess > 0, !held.contains(past.version) else { return false }
            excess -= 1
            return true
        }
    }
}

/// One change of the registry: a name as it will be (nil: gone), with its audit entry.
package struct RegistryChange: Sendable {
    package struct Audit: Sendable {
        package var actor: String
        package var action: RegistryEvent.Action
        package var version: AdapterVersionID?
        package var detail = ""
    }

    package var key: AdapterKey
    package var before: NameEntry?
    package var after: NameEntry?
    /// Row to write for a version whose folder was just moved into the store.
    package var stored: StoredVersion?
    package var audit: Audit

    /// Versions that this name lets go.
    var released: [AdapterVersionID] {
        (before?.history ?? []).map(\.version).filter { !(after?.contains($0) ?? false) }
    }
}

/// All of the registry's rows in memory, with what only memory knows; requests read this and never
/// the database. A value type: whoever holds the lock changes it.
struct RegistryContents: Sendable {
    private(set) var names: [AdapterKey: NameEntry] = [:]
    private(set) var versions: [AdapterVersionID: StoredVersion] = [:]
    /// Aliases to the adapters that they stand for; an alias and an adapter never have one name.
    private(set) var aliases: [AdapterKey: AdapterKey] = [:]
    /// How many names have a version in their history.
    private var references: [AdapterVersionID: Int] = [:]
    /// What is wrong with a version's files.
    var damage: [AdapterVersionID: String] = [:]
    /// Why whole versions do not fit the base model.
    var misfits: [AdapterVersionID: String] = [:]
    private var leaseCounts: [AdapterVersionID: Int] = [:]
    /// What each tenant has; only those that have something.
    private(set) var holdings: [String: TenantHoldings] = [:]
    /// Versions without a row whose files wait for their last lease.
    private var lingering: Set<AdapterVersionID> = []

    init(names: [NameEntry] = [], versions: [StoredVersion] = []) {
        for version in versions { self.versions[version.id] = version }
        for entry in names { replace(nil, with: entry, key: entry.key) }
    }

    var leaseCount: Int { leaseCounts.values.reduce(0, +) }

    /// Takes committed changes over; returns the versions whose files nobody needs any more.
    mutating func apply(_ changes: [RegistryChange]) -> [AdapterVersionID] {
        for change in changes {
            if let stored = change.stored {
                versions[stored.id] = stored
                damage[stored.id] = nil
                lingering.remove(stored.id)
            }
            replace(change.before, with: change.after, key: change.key)
        }
        var unused: [AdapterVersionID] = []
        for version in Set(changes.flatMap(\.released)) where references[version] == nil {
            versions[version] = nil
            damage[version] = nil
            misfits[version] = nil
            if leaseCounts[version] == nil {
                unused.append(version)
            } else {
                lingering.insert(version)
            }
        }
        return unused
    }

    func isHeld(_ version: AdapterVersionID) -> Bool { leaseCounts[version] != nil }

    mutating func hold(_ version: AdapterVersionID) {
        leaseCounts[version, default: 0] += 1
    }

    /// Returns true if the version's files can go now.
    mutating func release(_ version: AdapterVersionID) -> Bool {
        guard let count = leaseCounts[version] else { return false }
        leaseCounts[version] = count > 1 ? count - 1 : nil
        return count == 1 && lingering.contains(version)
    }

    /// Asked on the writer's queue right before files are thrown away.
    mutating func forgetIfUnused(_ version: AdapterVersionID) -> Bool {
        guard versions[version] == nil, leaseCounts[version] == nil else { return false }
        lingering.remove(version)
        return true
    }

    func record(_ key: AdapterKey) -> AdapterRecord? {
        names[key].flatMap { record($0, $0.current) }
    }

    /// The record as of one version in the name's history.
    func record(_ entry: NameEntry, _ past: NameEntry.Past) -> AdapterRecord? {
        guard let stored = versions[past.version] else { return nil }
        return AdapterRecord(
            name: entry.key.name, version: past.version, method: stored.description.method,
            rank: stored.description.rank, targets: stored.description.targets,
            byteCount: stored.description.byteCount,
            parameterCount: stored.description.parameterCount,
            traits: stored.description.traits, storedByteCount: stored.storedByteCount,
            tenant: entry.key.tenant,
            created: past.created,
            state: state(of: past.version, in: entry),
            pinned: entry.isPinned,
            aliases: entry.aliases.keys.sorted())
    }

    private func state(of version: AdapterVersionID, in entry: NameEntry) -> AdapterState {
        if entry.isDisabled { return .disabled }
        if damage[version] != nil { return .damaged }
        return misfits[version] == nil ? .ready : .incompatible
    }

    private mutating func replace(
        _ before: NameEntry?, with after: NameEntry?, key: AdapterKey
    ) {
        for past in after?.history ?? [] { references[past.version, default: 0] += 1 }
        for past in before?.history ?? [] {
            let count = references[past.version, default: 1] - 1
            references[past.version] = count == 0 ? nil : count
        }
        for alias in before?.aliases.keys ?? [:].keys {
            let aliasKey = AdapterKey(name: alias, tenant: key.tenant)
            // A move to another adapter may have been taken over already.
            if aliases[aliasKey] == key { aliases[aliasKey] = nil }
        }
        for alias in after?.aliases.keys ?? [:].keys {
            aliases[AdapterKey(name: alias, tenant: key.tenant)] = key
        }
        names[key] = after
        var held = holdings[key.tenant] ?? TenantHoldings()
        held.replace(before, with: after) { versions[$0]?.storedByteCount ?? 0 }
        holdings[key.tenant] = held.adapterCount == 0 ? nil : held
    }
}
