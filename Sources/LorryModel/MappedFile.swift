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

    /// Brings all pages in: what is not in memory is read in large pieces, and what is gets into the
    /// page tables in one go.
    func populate() {
        guard let base = bytes.baseAddress else { return }
        let address = UnsafeMutableRawPointer(mutating: base)
        // Advice only: pages come one fault after the other where the system does not know it.
        madvise(address, bytes.count, MADV_WILLNEED)
        #if os(Linux)
            madvise(address, bytes.count, MADV_POPULATE_READ)
        #endif
    }

    /// Takes the whole pages of a part out of the process's memory; they come back from the system's
    /// cache, or the file, when they are read again.
    func letGo(of part: UnsafeRawBufferPointer) {
        guard let start = part.baseAddress else { return }
        let pageSize = UInt(getpagesize())
        let first = (UInt(bitPattern: start) + pageSize - 1) / pageSize * pageSize
        let end = (UInt(bitPattern: start) + UInt(part.count)) / pageSize * pageSize
        guard first < end, let address = UnsafeMutableRawPointer(bitPattern: first) else { return }
        madvise(address, Int(end - first), MADV_DONTNEED)
    }

    /// Starts to read a file into the system's cache, without waiting for it. Does nothing where
    /// there is no such file.
    static func readAhead(path: String) {
        #if os(Linux)
            let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
            guard descriptor >= 0 else { return }
            posix_fadvise(descriptor, 0, 0, POSIX_FADV_WILLNEED)
            close(descriptor)
        #endif
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
