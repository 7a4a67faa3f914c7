import Foundation

/// Takes a backup's bytes; it stands there whole after `finish`, and else not at all.
public protocol BackupSink: AnyObject {
    func push(_ bytes: [UInt8]) throws(RegistryError)
    func finish() throws(RegistryError) -> BackupContents
    /// Removes what was written. Harmless when repeated, and after `finish`.
    func discard()
}

extension StateRestore: BackupSink {}

/// A backup as one tar file, checked while it is written. Not thread-safe.
public final class BackupFile: BackupSink {
    private let path: String
    private let partialPath: String
    private let files: FileLayer
    private let output: OutputFile
    private let reader = BackupReader()
    private var isOver = false

    /// - Throws: `conflict` if the file is there already, `storage` or `full`.
    public convenience init(path: String) throws(RegistryError) {
        try self.init(path: path, files: FileLayer())
    }

    package init(path: String, files: FileLayer) throws(RegistryError) {
        self.path = path
        self.files = files
        let place = URL(fileURLWithPath: path)
        partialPath =
            place.deletingLastPathComponent()
            .appendingPathComponent(".\(place.lastPathComponent).\(UUID().uuidString).partial").path
        do {
            guard try files.kind(of: path) == nil else {
                throw RegistryError(.conflict, "\(path) exists already")
            }
            output = try files.createFile(partialPath)
        } catch {
            throw RegistryError.wrapping(error)
        }
    }

    deinit { discard() }

    public func push(_ bytes: [UInt8]) throws(RegistryError) {
        do {
            try output.write(bytes[...])
            try reader.push(bytes)
        } catch {
            discard()
            throw RegistryError.wrapping(error)
        }
    }

    public func finish() throws(RegistryError) -> BackupContents {
        do {
            let contents = try reader.finish()
            try output.sync()
            try files.rename(partialPath, to: path)
            isOver = true
            try files.syncDirectory(
                URL(fileURLWithPath: path).deletingLastPathComponent().path)
            return contents
        } catch {
            discard()
            throw RegistryError.wrapping(error)
        }
    }

    public func discard() {
        if isOver { return }
        isOver = true
        // What cannot be removed has a name that says what it is.
        try? files.removeTree(partialPath)
    }
}
