import Crypto
import Foundation
import LorryModel

/// A folder in `staging` that receives an adapter's files and becomes a version, or goes away.
///
/// Not thread-safe: one upload or import owns it.
package final class StagedFolder {
    let path: String
    private(set) var ignored: [String] = []
    private(set) var receivedByteCount = 0

    private let files: FileLayer
    private let limits: UploadLimits
    private var finished: [StoredFile] = []
    private var seen: Set<String> = []
    private var current:
        (
            name: String, file: OutputFile?, hash: SHA256, checksum: ContentChecksum.Stream,
            limit: Int
        )?

    package init(path: String, files: FileLayer, limits: UploadLimits) throws {
        self.path = path
        self.files = files
        self.limits = limits
        try files.createDirectory(path)
    }

    /// Starts a file; ignored names take their bytes too and drop them.
    /// - Parameter byteCount: the length if it is known, so that a large file is refused early.
    func begin(_ name: String, byteCount: Int? = nil) throws {
        guard current == nil else {
            throw RegistryError(.invalid, "\(quoted(name)) begins inside another file")
        }
        guard seen.insert(name).inserted else {
            throw RegistryError(.invalid, "\(quoted(name)) is there twice")
        }
        // Those that are left out are held by name too.
        guard seen.count <= limits.maxEntryCount else {
            throw RegistryError(
                .tooLarge, "the upload has more than \(limits.maxEntryCount) files")
        }
        let fate = try AdapterFile.fate(of: name)
        let limit = AdapterFile.maxByteCount(of: name, limits)
        if let byteCount, byteCount > limit { throw tooLarge(name, limit) }
        switch fate {
        case .store:
            let file = try files.createFile(path + "/" + name)
            current = (name, file, SHA256(), ContentChecksum.Stream(), limit)
        case .ignore:
            ignored.append(name)
            current = (name, nil, SHA256(), ContentChecksum.Stream(), limit)
        case .unknown: throw AdapterFile.unknownName(name)
        }
        receivedByteCount = 0
    }

    func write(_ bytes: ArraySlice<UInt8>) throws {
        guard let (name, file, _, checksum, limit) = current else {
            throw RegistryError(.invalid, "bytes arrived outside a file")
        }
        receivedByteCount += bytes.count
        guard receivedByteCount <= limit else { throw tooLarge(name, limit) }
        guard let file else { return }
        try file.write(bytes)
        bytes.withUnsafeBytes { bytes in
            current?.hash.update(bufferPointer: bytes)
            checksum.update(bytes)
        }
    }

    /// Ends the file; its bytes are on disk when this returns.
    func end() throws {
        guard let (name, file, hash, checksum, _) = current else {
            throw RegistryError(.invalid, "a file ended that had not begun")
        }
        current = nil
        guard let file else { return }
        try file.sync()
        finished.append(
            StoredFile(
                name: name, byteCount: file.byteCount,
                sha256: ContentDigest.hex(hash.finalize()), checksum: checksum.checksum))
    }

    /// Checks the folder whole and makes it durable.
    /// - Throws: `RegistryError` naming what is missing or wrong, or what `inspect` throws.
    package func seal(inspect: (URL) throws -> AdapterDescription) throws -> StagedVersion {
        if let current {
            throw RegistryError(.invalid, "\(quoted(current.name)) is cut short")
        }
        guard finished.contains(where: { $0.name == AdapterFile.configuration }) else {
            throw RegistryError(.invalid, "\(AdapterFile.configuration) is missing")
        }
        let weights = AdapterFile.weights.filter { name in
            finished.contains { $0.name == name }
        }
        guard weights.count == 1 else {
            throw RegistryError(
                .invalid,
                weights.isEmpty
                    ? "\(AdapterFile.weights[0]) is missing"
                    : "\(weights.joined(separator: " and ")) are both there")
        }
        let configuration = try files.readFile(
            path + "/" + AdapterFile.configuration, maxByteCount: limits.maxConfigurationByteCount)
        let sorted = finished.sorted { $0.name < $1.name }
        let version = try ContentDigest.version(of: sorted, configuration: configuration)
        let description: AdapterDescription
        do {
            description = try inspect(URL(fileURLWithPath: path, isDirectory: true))
        } catch let error as RegistryError {
            throw error
        } catch {
            throw RegistryError(.invalid, String(describing: error))
        }
        try files.syncDirectory(path)
        return StagedVersion(
            path: path, id: version, description: description, files: sorted, ignored: ignored)
    }

    private func tooLarge(_ name: String, _ limit: Int) -> RegistryError {
        RegistryError(.tooLarge, "\(quoted(name)) is larger than the limit of \(limit) bytes")
    }
}

/// A checked version on disk in `staging`, ready to be moved into the store.
package struct StagedVersion: Sendable {
    let path: String
    let id: AdapterVersionID
    let description: AdapterDescription
    let files: [StoredFile]
    let ignored: [String]
}
