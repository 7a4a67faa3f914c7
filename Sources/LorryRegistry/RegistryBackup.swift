import Crypto
import Foundation
import LorryModel
import Synchronization

/// What a backup says of itself, in its last file.
package struct BackupManifest: Codable, Equatable {
    package struct Damaged: Codable, Equatable {
        package let version: AdapterVersionID
        package let problem: String
    }

    static let name = "manifest.json"
    static let maxByteCount = 16 << 20
    static let currentFormat = 1

    package var format = BackupManifest.currentFormat
    /// SHA-256 of `registry.sqlite`.
    package let databaseDigest: String
    /// Versions whose files are in the archive.
    package let versionCount: Int
    /// Versions that were damaged already, so that their files are not in the archive.
    package let damaged: [Damaged]
}

/// A state directory as of one moment, read piece by piece as a tar archive:
///
/// ```
/// registry.sqlite                    a copy made by SQLite's backup interface
/// store/<aa>/<sha256>/<file>         every version that a row names, each checked before it is sent
/// manifest.json                      a `BackupManifest`; an archive without it is cut short
/// ```
/// Unpacked by hand it is a state directory. Leases hold the versions until it is let go, whatever
/// is removed meanwhile; changes wait for the copy of the database only.
public actor RegistryBackup {
    private enum Phase {
        case database, versions, manifest, over
    }
    private struct OpenFile {
        let input: InputFile
        let expected: StoredFile
        var hash = SHA256()
        var byteCount = 0
    }

    /// Of the archive, if nothing is found damaged; up to the manifest's size.
    public nonisolated let estimatedByteCount: Int
    public nonisolated let versionCount: Int

    private let core: RegistryCore
    private let writer: RegistryWriter
    private let slot: BackupSlot
    private let actorName: String
    private let folder: String
    private let database: StoredFile
    private let held: [StoredVersion]
    private let executor = QueueExecutor(label: "lorry.registry.backup")
    private var phase = Phase.database
    private var waiting: [StoredVersion]
    private var files: [(path: String, file: StoredFile)] = []
    private var open: OpenFile?
    private var damaged: [BackupManifest.Damaged] = []

    public nonisolated var unownedExecutor: UnownedSerialExecutor {
        executor.asUnownedSerialExecutor()
    }

    /// The caller has made the folder with the database's copy, and counted a lease of each version.
    init(
        _ core: RegistryCore, _ writer: RegistryWriter, _ slot: BackupSlot, actor: String,
        folder: String, versions: [StoredVersion]
    ) throws {
        self.slot = slot
        self.core = core
        self.writer = writer
        actorName = actor
        self.folder = folder
        held = versions
        waiting = versions.reversed()
        versionCount = versions.count
        let copy = try core.files.openFile(folder + "/" + StateDirectory.databaseName)
        var hash = SHA256()
        var byteCount = 0
        while let bytes = try copy.read() {
            bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
            byteCount += bytes.count
        }
        database = StoredFile(
            name: StateDirectory.databaseName, byteCount: byteCount,
            sha256: ContentDigest.hex(hash.finalize()))
        estimatedByteCount =
            ([database] + versions.flatMap(\.files))
            .reduce(TarWriter.end.count) { $0 + TarWriter.entryByteCount($1.byteCount) }
    }

    deinit {
        for version in held { core.release(version.id) }
        try? core.files.removeTree(folder)
    }

    /// The next bytes of the archive; nil at its end.
    /// - Throws: `RegistryError`: what was sent so far is no backup then.
    public func next() async throws(RegistryError) -> [UInt8]? {
        do {
            if open != nil { return try readOpenFile() }
            switch phase {
            case .database:
                phase = .versions
                return try begin(database, path: database.name, in: folder + "/" + database.name)
            case .versions:
                if let (path, file) = files.popLast() {
                    return try begin(file, path: path, in: core.state.path + "/" + path)
                }
                try await takeNextVersion()
                return []
            case .manifest:
                phase = .over
                return try manifest()
            case .over: return nil
            }
        } catch {
            phase = .over
            open = nil
            throw RegistryError.wrapping(error)
        }
    }

    /// Checks a version's files before the archive names them: what has been sent cannot be taken
    /// back.
    private func takeNextVersion() async throws {
        guard let version = waiting.popLast() else {
            phase = .manifest
            return
        }
        if let problem = core.contentProblem(version) {
            damaged.append(.init(version: version.id, problem: problem))
            if core.withContents({ $0.damage[version.id] }) == nil {
                try await writer.markDamaged(version.id, problem: problem, actor: actorName)
            }
            return
        }
        let folder = "store/\(version.id.digest.prefix(2))/\(version.id.digest)/"
        files = version.files.map { (folder + $0.name, $0) }.reversed()
    }

    private func begin(_ file: StoredFile, path: String, in location: String) throws -> [UInt8] {
        open = OpenFile(input: try core.files.openFile(location), expected: file)
        return TarWriter.header(path, byteCount: file.byteCount)
    }

    private func readOpenFile() throws -> [UInt8] {
        guard var file = open else { return [] }
        if let bytes = try file.input.read() {
            bytes.withUnsafeBytes { file.hash.update(bufferPointer: $0) }
            file.byteCount += bytes.count
            open = file
            guard file.byteCount <= file.expected.byteCount else { throw changed(file) }
            return bytes
        }
        open = nil
        guard file.byteCount == file.expected.byteCount,
            ContentDigest.hex(file.hash.finalize()) == file.expected.sha256
        else { throw changed(file) }
        return TarWriter.padding(file.byteCount)
    }

    private func changed(_ file: OpenFile) -> RegistryError {
        RegistryError(.damaged, "\(file.input.path) changed while it was read for a backup")
    }

    private func manifest() throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
        let text = try encoder.encode(
            BackupManifest(
                databaseDigest: database.sha256, versionCount: held.count - damaged.count,
                damaged: damaged))
        return TarWriter.header(BackupManifest.name, byteCount: text.count) + text
            + TarWriter.padding(text.count) + TarWriter.end
    }
}

/// A place among the backups that may be open at once: each has a copy of the database on disk.
final class BackupSlot: Sendable {
    static let maxCount = 4
    private let core: RegistryCore

    /// - Throws: `busy` if all are taken.
    init(_ core: RegistryCore) throws(RegistryError) {
        // Counted here and given back by deinit, also where it turns out to be one too many.
        self.core = core
        let count = core.openBackupCount.withLock { count in
            count += 1
            return count
        }
        guard count <= Self.maxCount else {
            throw RegistryError(
                .busy, "\(Self.maxCount) backups are under way already; try again later")
        }
    }

    deinit { core.openBackupCount.withLock { $0 -= 1 } }
}

extension AdapterRegistry {
    /// Takes a snapshot of the whole state directory; reading it may take as long as it likes.
    ///
    /// The audit log notes it, and the snapshot holds that note.
    /// - Throws: `busy` if too much is under way, `storage` or `full` if the database cannot be
    ///   copied.
    public func makeBackup(actor: String) async throws(RegistryError) -> RegistryBackup {
        let slot = try BackupSlot(core)
        let (folder, versions) = try await writer.snapshot(actor: actor)
        do {
            return try RegistryBackup(
                core, writer, slot, actor: actor, folder: folder, versions: versions)
        } catch {
            for version in versions { core.release(version.id) }
            try? core.files.removeTree(folder)
            throw RegistryError.wrapping(error)
        }
    }
}

extension RegistryWriter {
    /// Copies the database and holds every version that it names; no change comes between.
    /// - Returns: a folder in `staging` with the copy, and the versions.
    func snapshot(actor: String) throws(RegistryError) -> (String, [StoredVersion]) {
        try turn {
            try core.state.checkInPlace()
            let event = try core.database.note(
                .init(actor: actor, action: .backup), AdapterKey(name: ""))
            core.feed.publish([event])
            let folder = core.state.newStagingPath()
            do {
                try core.files.createDirectory(folder)
                try core.database.copy(to: folder + "/" + StateDirectory.databaseName)
            } catch {
                try? core.files.removeTree(folder)
                throw error
            }
            let versions = core.withContents { contents in
                for version in contents.versions.keys { contents.hold(version) }
                return contents.versions.values.sorted { $0.id.digest < $1.id.digest }
            }
            return (folder, versions)
        }
    }
}
