import Foundation
import LorryModel

/// An adapter on its way in: bytes go to a folder of its own in `staging`, checked as they come.
///
/// Feed it either one archive or named files, then hand it to `AdapterRegistry.add`. Dropping it,
/// or `discard()`, leaves nothing behind. After an error only `discard()` makes sense.
public actor AdapterUpload {
    private enum Phase {
        case empty
        case archive(ArchiveUnpacker)
        case files
        case failed
        case spent
    }

    private let folder: StagedFolder
    private let limits: UploadLimits
    private let slot: UploadSlot
    private let executor: QueueExecutor
    private let files: FileLayer
    private let path: String
    private var phase = Phase.empty
    private var bodyByteCount = 0

    public nonisolated var unownedExecutor: UnownedSerialExecutor {
        executor.asUnownedSerialExecutor()
    }

    init(path: String, files: FileLayer, limits: UploadLimits, slot: UploadSlot) throws {
        self.files = files
        self.path = path
        self.limits = limits
        self.slot = slot
        executor = QueueExecutor(label: "lorry.registry.upload")
        folder = try StagedFolder(path: path, files: files, limits: limits)
    }

    deinit {
        if slot.isFreed { return }
        executor.enqueue { [files, path] in try? files.removeTree(path) }
    }

    /// Takes the next bytes of a tar or tar.gz body.
    /// - Throws: `RegistryError`: `invalid`, `unsupported` or `tooLarge` by entry and reason.
    public func writeArchive(_ bytes: [UInt8]) throws(RegistryError) {
        try step {
            if case .empty = phase {
                phase = .archive(ArchiveUnpacker(into: folder, limits: limits))
            }
            guard case .archive(let unpacker) = phase else { throw misuse }
            slot.received(bytes.count)
            try unpacker.push(bytes[...])
        }
    }

    /// Starts the file `name`, as a part of a multipart body does.
    public func beginFile(_ name: String) throws(RegistryError) {
        try step {
            if case .empty = phase { phase = .files }
            guard case .files = phase else { throw misuse }
            try folder.begin(name)
        }
    }

    /// Takes the next bytes of the file begun last.
    public func writeFile(_ bytes: [UInt8]) throws(RegistryError) {
        try step {
            guard case .files = phase else { throw misuse }
            bodyByteCount += bytes.count
            guard bodyByteCount <= limits.maxBodyByteCount else {
                throw RegistryError(
                    .tooLarge,
                    "the files together are larger than the limit of "
                        + "\(limits.maxBodyByteCount) bytes")
            }
            slot.received(bytes.count)
            try folder.write(bytes[...])
        }
    }

    public func endFile() throws(RegistryError) {
        try step {
            guard case .files = phase else { throw misuse }
            try folder.end()
        }
    }

    /// Copies a local folder's adapter files; links are refused, other folders in it are left out.
    public func copyFolder(_ source: URL) throws(RegistryError) {
        try step {
            guard case .empty = phase else { throw misuse }
            phase = .files
            try FolderCopy(source: source.path, files: files).copy(into: folder)
        }
    }

    /// Removes everything received. Harmless when repeated.
    public func discard() {
        if case .spent = phase { return }
        phase = .spent
        slot.free()
        try? files.removeTree(path)
    }

    func seal(
        inspect: @Sendable (URL) throws -> AdapterDescription
    ) throws(RegistryError) -> StagedVersion {
        try step {
            slot.enter(.checking)
            switch phase {
            case .archive(let unpacker): try unpacker.finish()
            case .files, .empty: break
            case .failed, .spent: throw misuse
            }
            let sealed = try folder.seal(inspect: inspect)
            phase = .files
            return sealed
        }
    }

    /// The folder has become a version, or will be removed by whoever took it.
    func markSpent() {
        phase = .spent
        slot.free()
    }

    private func step<Result>(_ body: () throws -> Result) throws(RegistryError) -> Result {
        do {
            return try body()
        } catch {
            if case .spent = phase {} else { phase = .failed }
            throw RegistryError.wrapping(error)
        }
    }

    private var misuse: RegistryError {
        switch phase {
        case .failed: RegistryError(.invalid, "the upload has failed already")
        case .spent: RegistryError(.invalid, "the upload is over")
        default: RegistryError(.invalid, "an upload is either one archive or named files")
        }
    }
}
