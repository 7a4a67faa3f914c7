import Foundation
import Logging
import LorryModel
import Synchronization

/// Checks an adapter's folder whole. What it throws reaches the uploader: a `RegistryError` as it
/// is, anything else as `invalid` with the error's description.
public typealias AdapterInspection = @Sendable (_ folder: URL) throws -> AdapterDescription

/// Names → immutable adapter versions, kept on disk so that each is whole or absent whenever the
/// process ends.
///
/// Reading (`record`, `list`, `acquire` …) is answered from memory and never waits for a change or
/// for the disk. Changes run one after another on a queue of the registry's own, uploads each on
/// theirs, so nothing blocks the caller's thread. A name belongs to a tenant; the adapters of
/// `AdapterKey.sharedTenant` are everyone's to use.
public final class AdapterRegistry: Sendable {
    let core: RegistryCore
    let writer: RegistryWriter

    /// Opens the state directory, creating it if need be, takes its lock, brings the database up
    /// to date, removes what a crash left behind and marks versions whose files are damaged.
    /// - Throws: `busy` if another process has the directory, `damaged` for a database that is
    ///   broken or gone, `unsupported` for one of a newer Lorry, `storage` if the disk fails.
    public convenience init(
        stateDirectory: URL, configuration: RegistryConfiguration = RegistryConfiguration(),
        log: Logger = Logger(label: "lorry.registry"), inspect: @escaping AdapterInspection
    ) throws(RegistryError) {
        try self.init(
            stateDirectory: stateDirectory, configuration: configuration, log: log,
            files: FileLayer(), inspect: inspect)
    }

    package init(
        stateDirectory: URL, configuration: RegistryConfiguration, log: Logger,
        files: FileLayer, inspect: @escaping AdapterInspection
    ) throws(RegistryError) {
        do {
            core = try RegistryCore(
                directory: stateDirectory.path, configuration: configuration, inspect: inspect,
                log: log, files: files)
        } catch {
            throw RegistryError.wrapping(error)
        }
        writer = RegistryWriter(core)
    }

    /// Waits for the change under way, then gives the state directory up. Leases stay readable.
    public func close() async {
        await writer.close()
    }

    package func journalSettings() throws -> [String] { try core.database.journalSettings() }

    /// Number of leases not yet released.
    public var leaseCount: Int { core.withContents { $0.leaseCount } }
    /// Number of names.
    public var count: Int { core.withContents { $0.names.count } }
    public var openUploadCount: Int { core.openUploads.withLock { $0.statuses.count } }

    /// Uploads under way, the oldest first.
    public func uploads() -> [UploadStatus] {
        core.openUploads.withLock { $0.statuses.values.sorted { $0.id < $1.id } }
    }

    /// Resolves what a client wrote and holds that version's files until the lease is let go.
    ///
    /// - Parameters:
    ///   - reference: `name`, or `name@version` with at least eight of the version's hex digits
    ///     and the version in the name's history. The name may be an alias.
    ///   - tenant: its own adapters and aliases come first, then the shared ones; no others exist
    ///     for it.
    /// - Throws: `notFound`, `disabled`, `damaged`, or `invalid` for a malformed version.
    /// - Complexity: O(1) in the number of adapters; no I/O.
    public func acquire(
        _ reference: String, tenant: String = AdapterKey.sharedTenant
    ) throws(RegistryError) -> AdapterLease {
        let wanted = try VersionedName(reference)
        let found = core.withContents { contents -> Result<AdapterRecord, RegistryError> in
            do throws(RegistryError) {
                let record = try contents.servable(wanted, tenant: tenant)
                contents.hold(record.version)
                return .success(record)
            } catch {
                return .failure(error)
            }
        }
        return core.lease(try found.get())
    }

    public func record(
        name: String, tenant: String = AdapterKey.sharedTenant
    ) throws(RegistryError) -> AdapterRecord {
        let key = AdapterKey(name: name, tenant: tenant)
        return try core.withContents { contents in
            contents.record(key).map(Result.success) ?? .failure(contents.missing(key))
        }.get()
    }

    /// The versions a rollback can reach, the one served last first.
    public func versions(
        name: String, tenant: String = AdapterKey.sharedTenant
    ) throws(RegistryError) -> [AdapterVersion] {
        let key = AdapterKey(name: name, tenant: tenant)
        return try core.withContents { contents -> Result<[AdapterVersion], RegistryError> in
            guard let entry = contents.names[key] else { return .failure(contents.missing(key)) }
            return .success(
                entry.history.reversed().compactMap { contents.version($0, of: entry) })
        }.get()
    }

    /// One page of adapters, sorted by name, then tenant.
    /// - Complexity: O(n log n) in the number of adapters.
    public func list(_ query: ListQuery = ListQuery()) -> AdapterPage {
        let all = core.withContents { contents in
            contents.names.keys.filter { query.mayHold($0) }.compactMap { contents.record($0) }
        }
        let matching = all.filter(query.matches).sorted { $0.key < $1.key }
        let page = matching.prefix(max(0, query.limit))
        return AdapterPage(
            adapters: Array(page), next: page.count < matching.count ? page.last?.key : nil,
            remainingCount: matching.count - page.count)
    }

    /// Audit entries as stored. Page with the last id seen.
    public func events(_ query: EventQuery) async throws(RegistryError) -> [RegistryEvent] {
        do {
            return try await core.database.events(query)
        } catch {
            throw RegistryError.wrapping(error)
        }
    }

    /// Changes from now on, each after its commit. A slow reader loses the oldest of 1,024
    /// waiting events; the gap in their ids shows it, and `events` fills it.
    public func eventStream() -> AsyncStream<RegistryEvent> { core.feed.stream() }
}

/// Which adapters to list.
public struct ListQuery: Sendable {
    /// Nil for all tenants.
    public var tenants: Set<String>?
    public var method: String?
    public var state: AdapterState?
    /// Nil for all versions; else only adapters whose current one is among these.
    public var versions: Set<String>?
    public var namePrefix: String?
    /// Nil for all names.
    public var names: Set<String>?
    /// Where the page before ended.
    public var after: AdapterKey?
    public var limit = 1000

    public init() {}

    func mayHold(_ key: AdapterKey) -> Bool {
        (tenants?.contains(key.tenant) ?? true) && (namePrefix.map(key.name.hasPrefix) ?? true)
            && (names?.contains(key.name) ?? true) && (after.map { $0 < key } ?? true)
    }

    func matches(_ record: AdapterRecord) -> Bool {
        (method.map { $0.caseInsensitiveCompare(record.method) == .orderedSame } ?? true)
            && (state.map { $0 == record.state } ?? true)
            && (versions?.contains(record.version.digest) ?? true)
    }
}

public struct AdapterPage: Sendable, Equatable {
    public let adapters: [AdapterRecord]
    /// What to ask for as `after` next; nil on the last page.
    public let next: AdapterKey?
    /// Matching adapters after this page.
    public let remainingCount: Int
}

/// What `add` did.
public struct AddOutcome: Sendable, Equatable {
    public let record: AdapterRecord
    /// False if this name had that content already; nothing was stored twice then.
    public let created: Bool
    /// Files that were received and left out, by name.
    public let ignoredFiles: [String]
}

extension RegistryContents {
    /// The record of the version that a request is to get.
    func servable(
        _ wanted: VersionedName, tenant: String
    ) throws(RegistryError) -> AdapterRecord {
        guard let (entry, fixed) = named(wanted.name, by: tenant) else {
            throw .noAdapter(AdapterKey(name: wanted.name, tenant: tenant))
        }
        guard !entry.isDisabled else {
            throw RegistryError(.disabled, "the adapter \(quoted(wanted.name)) is disabled")
        }
        let past = try wanted.versionPrefix.map { prefix throws(RegistryError) in
            try entry.past(withPrefix: prefix)
        }
        guard let record = record(entry, past ?? fixed ?? entry.current) else {
            throw .noAdapter(entry.key)
        }
        if let problem = damage[record.version] {
            throw RegistryError(
                .damaged,
                "the adapter \(quoted(wanted.name)) is damaged (\(problem)); upload it again")
        }
        if let problem = misfits[record.version] {
            throw RegistryError.misfit(wanted.name, problem)
        }
        return record
    }

    /// The adapter that a tenant means by a name or alias, with the version that an alias fixes.
    private func named(
        _ name: String, by tenant: String
    ) -> (entry: NameEntry, fixed: NameEntry.Past?)? {
        for owner in [tenant, AdapterKey.sharedTenant] {
            let key = AdapterKey(name: name, tenant: owner)
            if let entry = names[key] { return (entry, nil) }
            if let entry = aliases[key].flatMap({ names[$0] }) {
                let version = entry.aliases[name]?.version
                return (entry, entry.history.first { $0.version == version })
            }
        }
        return nil
    }

    func version(_ past: NameEntry.Past, of entry: NameEntry) -> AdapterVersion? {
        guard let record = record(entry, past) else { return nil }
        return AdapterVersion(
            version: past.version, method: record.method, rank: record.rank,
            targets: record.targets, byteCount: record.byteCount,
            storedByteCount: record.storedByteCount, created: past.created,
            current: past == entry.current, damaged: damage[past.version] != nil)
    }
}
