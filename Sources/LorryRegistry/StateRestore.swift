import Foundation

/// Fills an empty directory with a backup that is pushed in pieces. It becomes a state directory in
/// one step, after everything in it has been checked and synced; until then `restoring` stands in
/// it, and no Lorry opens it. Not thread-safe.
public final class StateRestore {
    /// What may be there before: a lock, what a file system brings, and weights of models.
    private static let neutral: Set<String> = ["lock", "lost+found", "weights"]

    private let state: StateDirectory
    private let reader: BackupReader
    private let files: FileLayer
    private let isNew: Bool
    private var isOver = false

    /// - Throws: `conflict` if there is anything in the directory but an unfinished restore, `busy`
    ///   if a process uses it, `storage` or `full`.
    public convenience init(stateDirectory: URL) throws(RegistryError) {
        try self.init(stateDirectory: stateDirectory, files: FileLayer())
    }

    package init(stateDirectory: URL, files: FileLayer) throws(RegistryError) {
        let path = stateDirectory.standardizedFileURL.path
        self.files = files
        reader = BackupReader(unpackingInto: path, files: files)
        do {
            isNew = try files.kind(of: path) == nil
            try Self.checkEmpty(path, files)
            state = try Self.open(path, isNew: isNew, files)
        } catch {
            throw RegistryError.wrapping(error)
        }
        do {
            // Again, now that nobody else can fill it.
            try Self.checkEmpty(path, files)
        } catch {
            isOver = true
            throw RegistryError.wrapping(error)
        }
        do {
            if try files.kind(of: state.restoreMark) == nil {
                try files.createFile(state.restoreMark).sync()
            }
            try files.syncDirectory(path)
            try files.syncDirectory(
                stateDirectory.standardizedFileURL.deletingLastPathComponent().path)
            try Self.clear(state, files)
            try files.createDirectory(state.store)
            try files.createDirectory(state.staging)
        } catch {
            discard()
            throw RegistryError.wrapping(error)
        }
    }

    private static func open(
        _ path: String, isNew: Bool, _ files: FileLayer
    ) throws -> StateDirectory {
        do {
            return try StateDirectory(path: path, files: files, isRestore: true)
        } catch {
            // Another process may have made it meanwhile.
            if isNew, (error as? RegistryError)?.kind != .busy { try? files.removeTree(path) }
            throw error
        }
    }

    deinit { discard() }

    /// - Throws: as `BackupReader.push`. Nothing of the restore is left then.
    public func push(_ bytes: [UInt8]) throws(RegistryError) {
        do {
            try reader.push(bytes)
        } catch {
            discard()
            throw error
        }
    }

    /// Checks what was unpacked against its database and makes it a state directory.
    public func finish() throws(RegistryError) -> BackupContents {
        do {
            let contents = try reader.finish()
            try checkRows(missing: Set(contents.damaged.map(\.version)))
            try syncAll()
            try files.removeTree(state.restoreMark)
            isOver = true
            try files.syncDirectory(state.path)
            state.unlock()
            return contents
        } catch {
            discard()
            throw RegistryError.wrapping(error)
        }
    }

    /// Removes what was unpacked. Harmless when repeated, and after `finish`.
    public func discard() {
        if isOver { return }
        isOver = true
        // What cannot be removed is refused by its mark, and removed by the next restore.
        do {
            try Self.clear(state, files)
            if isNew {
                try files.removeTree(state.path)
            } else {
                try files.removeTree(state.restoreMark)
            }
        } catch {}
        state.unlock()
    }

    private static func checkEmpty(_ path: String, _ files: FileLayer) throws {
        guard let kind = try files.kind(of: path) else { return }
        guard kind == .directory else { throw RegistryError(.conflict, "\(path) is not a folder") }
        let names = Set(try files.children(of: path)).subtracting(neutral)
        // Nothing is ever put beside the mark of a restore but what the restore wrote.
        if names.contains("restoring") { return }
        let isEmpty = try names.allSatisfy { name in
            try ["staging", "store"].contains(name)
                && files.children(of: path + "/" + name).isEmpty
        }
        guard isEmpty else {
            throw RegistryError(
                .conflict,
                "\(path) is not empty; a backup is restored to a new directory, which then takes the "
                    + "old one's place")
        }
    }

    private static func clear(_ state: StateDirectory, _ files: FileLayer) throws {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            try files.removeTree(state.database + suffix)
        }
        try files.removeTree(state.store)
        try files.removeTree(state.staging)
    }

    /// The archive must hold what the rows say, no less and no more.
    private func checkRows(missing: Set<AdapterVersionID>) throws {
        let database = try RegistryDatabase(path: state.database, mayBeNew: reader.versions.isEmpty)
        defer { database.close() }
        let rows = try database.load().versions
        for (id, row) in rows where !missing.contains(id) {
            let unpacked = (reader.versions[id] ?? []).map { [$0.name, $0.sha256] }
            guard Set(unpacked) == Set(row.files.map { [$0.name, $0.sha256] }) else {
                throw RegistryError(.damaged, "the backup is damaged: version \(id) is not whole")
            }
        }
        guard let extra = reader.versions.keys.first(where: { rows[$0] == nil }) else { return }
        throw RegistryError(.damaged, "the backup is damaged: no adapter has version \(extra)")
    }

    /// The files of versions and their folders are synced as they are unpacked.
    private func syncAll() throws {
        for parent in try files.children(of: state.store) {
            try files.syncDirectory(state.store + "/" + parent)
        }
        for folder in [state.store, state.staging, state.path] { try files.syncDirectory(folder) }
        try files.syncFile(state.database)
    }
}
