import Foundation

/// A file mapped read-only into memory.
///
/// Safe because the mapping is private to this object, never written, and unmapped only in
/// `deinit`; whoever keeps `bytes` keeps the object. A file that another process truncates while it
/// is mapped raises SIGBUS: the store's files are immutable, and a model folder must not be changed
/// while it is served.
public final class MappedFile: @unchecked Sendable {
    public let bytes: UnsafeRawBufferPointer
    public let path: String
    /// Of the file as it was when it was mapped.
    let identity: FileIdentity

    /// - Throws: `FileError` naming the path.
    public init(path: String) throws(FileError) {
        self.path = path
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(path: path, reason: FileError.lastReason()) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw FileError(path: path, reason: FileError.lastReason())
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw FileError(path: path, reason: "not a plain file")
        }
        identity = FileIdentity(status)
        let count = Int(status.st_size)
        guard count > 0 else {
            bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            return
        }
        guard let address = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0),
            address != MAP_FAILED
        else { throw FileError(path: path, reason: FileError.lastReason()) }
        bytes = UnsafeRawBufferPointer(start: address, count: count)
    }

    deinit {
        if let base = bytes.baseAddress {
            munmap(UnsafeMutableRawPointer(mutating: base), bytes.count)
        }
    }
}

/// A file that cannot be read, and why.
public struct FileError: Error, CustomStringConvertible, Sendable {
    public let path: String
    public let reason: String
    public var description: String { "\(path): \(reason)" }

    static func lastReason() -> String { String(cString: strerror(errno)) }
}
