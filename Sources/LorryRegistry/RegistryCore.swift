import Foundation
import Logging
import Synchronization

/// What the registry's parts share: the folder, the rows in memory, and the leases.
final class RegistryCore: Sendable {
    let state: StateDirectory
    let files: FileLayer
    let database: RegistryDatabase
    let configuration: RegistryConfiguration
    let inspect: AdapterInspection
    let log: Logger
    /// The queue on which names and the store change.
    let changes = QueueExecutor(label: "lorry.registry.changes")
    let feed = EventFeed()
    let openUploads = Mutex(OpenUploads())
    let openBackupCount = Mutex(0)
    /// Guards names, versions and lease counts; held for lookups, never for I/O.
    private let contents: Mutex<RegistryContents>

    init(
        directory: String, configuration: RegistryConfiguration,
        inspect: @escaping AdapterInspection, log: Logger, files: FileLayer
    ) throws {
        self.files = files
        self.configuration = configuration
        self.inspect = inspect
        self.log = log
        let state = try StateDirectory(path: directory, files: files)
        self.state = state
        let isStoreEmpty = try Self.storeIsEmpty(state, files)
        let found = try files.status(of: state.database)
        // SQLite takes an empty file for a new database, and removes its log.
        if found == nil || found?.byteCount == 0, !isStoreEmpty {
            throw RegistryError(
                .damaged,
                "\(state.database) is \(found == nil ? "missing" : "empty") although "
                    + "\(state.store) holds adapters; put back a backup of the state directory, or "
                    + "move the whole directory away")
        }
        database = try RegistryDatabase(path: state.database, mayBeNew: isStoreEmpty)
        try files.syncDirectory(directory)
        contents = Mutex(try database.load())
        try state.noteDatabase()
        try sweep()
    }

    func withContents<Result>(_ body: (inout RegistryContents) -> Result) -> Result {
        // The result leaves the lock as a copy; bodies only ever return values.
        var result: Result?
        contents.withLock { result = body(&$0) }
        guard let result else { preconditionFailure("withLock always runs its body") }
        return result
    }

    func close() {
        feed.finish()
        database.close()
        state.unlock()
    }

    func lease(_ record: AdapterRecord) -> AdapterLease {
        AdapterLease(
            record: record,
            directory: URL(
                fileURLWithPath: state.storeFolder(of: record.version), isDirectory: true),
            checksums: withContents { $0.versions[record.version]?.checksums }, core: self)
    }

    func release(_ version: AdapterVersionID) {
        if withContents({ $0.release(version) }) {
            changes.enqueue { self.throwAway(version) }
        }
    }

    /// Removes a version's files if nothing needs them. Runs on the `changes` queue.
    func throwAway(_ version: AdapterVersionID) {
        guard withContents({ $0.forgetIfUnused(version) }) else { return }
        do {
            try discardFolder(state.storeFolder(of: version))
        } catch {
            // The next start sweeps it.
            log.warning(
                "cannot remove an unused version",
                metadata: ["version": "\(version)", "reason": "\(error)"])
        }
    }

    /// Takes a folder out of the store in one step, then removes it piece by piece.
    func discardFolder(_ path: String) throws {
        guard try files.kind(of: path) != nil else { return }
        let bin = state.newStagingPath()
        try files.rename(path, to: bin)
        try files.removeTree(bin)
    }

    private static func storeIsEmpty(_ state: StateDirectory, _ files: FileLayer) throws -> Bool {
        try files.children(of: state.store).map { state.store + "/" + $0 }.allSatisfy {
            try files.kind(of: $0) != .directory || files.children(of: $0).isEmpty
        }
    }
}

/// Start-up: what a crash left is removed, what is damaged is marked.
extension RegistryCore {
    fileprivate func sweep() throws {
        for name in try files.children(of: state.staging) {
            log.info("removing an unfinished upload", metadata: ["folder": "\(name)"])
            try files.removeTree(state.staging + "/" + name)
        }
        try markDamage()
        try sweepStore()
        for key in withContents({ $0.names.keys.filter { self.isReserved($0.name) } }) {
            log.warning(
                "an adapter's name is reserved, so requests cannot reach it",
                metadata: ["name": "\(key.name)", "tenant": "\(key.tenant)"])
        }
    }

    func isReserved(_ name: String) -> Bool { configuration.reservedNames.contains(name) }

    /// Rows whose whole folder is gone are no work of a crash: the database is an old one, or
    /// altered, and folders without a row may be what its adapters need. They stay then.
    private func sweepStore() throws {
        let isSuspect = try withContents { Array($0.versions.keys) }.contains {
            try files.kind(of: state.storeFolder(of: $0)) == nil
        }
        for parent in try files.children(of: state.store) {
            let folder = state.store + "/" + parent
            guard try files.kind(of: folder) == .directory else { continue }
            for name in try files.children(of: folder) {
                guard let version = try? AdapterVersionID(name), name.hasPrefix(parent) else {
                    log.warning(
                        "the store holds something that Lorry did not write",
                        metadata: ["path": "\(folder)/\(name)"])
                    continue
                }
                guard withContents({ $0.versions[version] }) == nil else { continue }
                guard !isSuspect else {
                    log.warning(
                        "a version that no name has is kept, since others are missing",
                        metadata: ["path": "\(folder)/\(name)"])
                    continue
                }
                log.info("removing a version that no name has", metadata: ["version": "\(name)"])
                try discardFolder(folder + "/" + name)
            }
        }
    }

    private func markMisfit(_ version: AdapterVersionID, _ folder: URL) {
        guard let problem = configuration.misfit(folder) else { return }
        withContents { $0.misfits[version] = problem }
        log.warning(
            "a stored version does not fit the base model and is not served",
            metadata: ["version": "\(version)", "reason": "\(problem)"])
    }

    private func markDamage() throws {
        for stored in withContents({ Array($0.versions.values) }) {
            let folder = state.storeFolder(of: stored.id)
            guard let problem = try files.sizeProblem(stored.files, in: folder) else {
                markMisfit(stored.id, URL(fileURLWithPath: folder, isDirectory: true))
                continue
            }
            withContents { $0.damage[stored.id] = problem }
            log.error(
                "a stored version is damaged and not served; upload it again or roll back",
                metadata: ["version": "\(stored.id)", "reason": "\(problem)"])
        }
    }
}
