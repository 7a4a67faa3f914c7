import Crypto
import Foundation

/// What a backup holds, once it has been read to its end and found whole.
public struct BackupContents: Sendable {
    public struct Damaged: Sendable, Equatable {
        public let version: AdapterVersionID
        public let problem: String
    }

    public let versionCount: Int
    /// Bytes of all files in it.
    public let byteCount: Int
    /// Versions that were damaged when the backup was made, and whose files are not in it.
    public let damaged: [Damaged]
}

/// Checks a backup that is pushed in pieces, and unpacks it where it is told to.
///
/// Every version's files must hash to the version's own name (`ContentDigest`), and the database to
/// the manifest's digest. Not thread-safe.
public final class BackupReader {
    private struct Current {
        let path: String
        let output: OutputFile?
        var hash = SHA256()
        var byteCount = 0
        /// The bytes of a manifest or a configuration.
        var kept: [UInt8]?
    }

    /// The files of each version by their digests.
    private(set) var versions: [AdapterVersionID: [StoredFile]] = [:]
    private var tar = TarReader()
    private let target: (files: FileLayer, folder: String)?
    private var current: Current?
    private var databaseDigest: String?
    private var manifest: BackupManifest?
    private var open: (version: AdapterVersionID, files: [StoredFile], configuration: [UInt8]?)?
    private var byteCount = 0

    /// Only checks.
    public init() { target = nil }

    /// Unpacks below `folder`, where `store` must be there.
    init(unpackingInto folder: String, files: FileLayer) { target = (files, folder) }

    /// - Throws: `invalid` or `damaged` naming what is wrong; `storage` or `full` if it cannot be
    ///   unpacked.
    public func push(_ bytes: [UInt8]) throws(RegistryError) {
        do {
            try tar.push(bytes[...]) { event in
                switch event {
                case .entry(let entry): try begin(entry)
                case .data(let bytes): try take(bytes)
                case .endOfFile: try end()
                }
            }
        } catch {
            throw RegistryError.wrapping(error)
        }
    }

    /// - Throws: `damaged` if the archive is cut short or does not hold what its manifest says.
    public func finish() throws(RegistryError) -> BackupContents {
        guard let manifest else { throw damaged("it is cut short") }
        try tar.finish()
        guard manifest.databaseDigest == databaseDigest else {
            throw damaged("\(StateDirectory.databaseName) has other bytes than were saved")
        }
        guard manifest.versionCount == versions.count else {
            throw damaged("it holds \(versions.count) of \(manifest.versionCount) versions")
        }
        return BackupContents(
            versionCount: versions.count, byteCount: byteCount,
            damaged: manifest.damaged.map { .init(version: $0.version, problem: $0.problem) })
    }

    private func begin(_ entry: TarEntry) throws {
        let isFirst = databaseDigest == nil
        guard entry.kind == .file, manifest == nil, isFirst == (entry.path == database) else {
            throw RegistryError(
                .invalid, "the archive is no backup of Lorry: \(quoted(entry.path)) is in its place"
            )
        }
        if entry.path == BackupManifest.name {
            try closeVersion()
            guard entry.byteCount <= BackupManifest.maxByteCount else {
                throw damaged("its manifest is too large")
            }
            current = Current(path: entry.path, output: nil, kept: [])
            return
        }
        var kept: [UInt8]?
        if !isFirst, try beginStored(entry.path) == AdapterFile.configuration {
            guard entry.byteCount <= UploadLimits().maxConfigurationByteCount else {
                throw damaged("\(entry.path) is too large")
            }
            kept = []
        }
        let output = try target.map { try $0.files.createFile($0.folder + "/" + entry.path) }
        current = Current(path: entry.path, output: output, kept: kept)
    }

    /// Returns the file's name; the folder of a version is made with its first file.
    private func beginStored(_ path: String) throws -> String {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 4, parts[0] == "store", AdapterFile.stored.contains(parts[3]),
            let version = try? AdapterVersionID(parts[2]), parts[1] == version.digest.prefix(2)
        else { throw RegistryError(.invalid, "\(quoted(path)) does not belong into a backup") }
        guard open?.version != version else { return parts[3] }
        try closeVersion()
        guard versions[version] == nil else { throw damaged("version \(version) is there twice") }
        open = (version, [], nil)
        if let (files, folder) = target {
            try files.createDirectory("\(folder)/store/\(parts[1])")
            try files.createDirectory("\(folder)/store/\(parts[1])/\(version)")
        }
        return parts[3]
    }

    private func take(_ bytes: ArraySlice<UInt8>) throws {
        guard var file = current else { return }
        // Moved out and back, so that what was kept is not copied each time.
        current = nil
        bytes.withUnsafeBytes { file.hash.update(bufferPointer: $0) }
        file.byteCount += bytes.count
        file.kept? += bytes
        try file.output?.write(bytes)
        current = file
    }

    private func end() throws {
        guard let file = current else { return }
        current = nil
        byteCount += file.byteCount
        try file.output?.sync()
        let digest = ContentDigest.hex(file.hash.finalize())
        switch file.path {
        case database: databaseDigest = digest
        case BackupManifest.name: manifest = try readManifest(file.kept ?? [])
        default:
            let name = String(file.path.split(separator: "/").last ?? "")
            open?.files.append(StoredFile(name: name, byteCount: file.byteCount, sha256: digest))
            if let kept = file.kept { open?.configuration = kept }
        }
    }

    /// All files of a version have been read.
    private func closeVersion() throws {
        guard let (version, files, configuration) = open else { return }
        open = nil
        guard let configuration else {
            throw damaged("version \(version) has no \(AdapterFile.configuration)")
        }
        guard try ContentDigest.version(of: files, configuration: configuration) == version else {
            throw damaged("the files of version \(version) are not those that were saved")
        }
        versions[version] = files
        if let (layer, folder) = target {
            try layer.syncDirectory("\(folder)/store/\(version.digest.prefix(2))/\(version)")
        }
    }

    private func readManifest(_ bytes: [UInt8]) throws -> BackupManifest {
        guard let manifest = try? JSONDecoder().decode(BackupManifest.self, from: Data(bytes))
        else { throw damaged("its manifest cannot be read") }
        guard manifest.format == BackupManifest.currentFormat else {
            throw RegistryError(.unsupported, "the backup was made by another version of Lorry")
        }
        return manifest
    }

    private var database: String { StateDirectory.databaseName }

    private func damaged(_ reason: String) -> RegistryError {
        RegistryError(.damaged, "the backup is damaged: \(reason)")
    }
}
