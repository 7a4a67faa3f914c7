import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A change to the disk that is about to happen. Tests stop the world at any of them.
package enum DiskOperation: Sendable, Equatable {
    case createDirectory(String)
    case createFile(String)
    case write(String)
    case syncFile(String)
    case syncDirectory(String)
    case rename(String, to: String)
    case remove(String)
    case commitRows
    case rowsCommitted
}

/// The only way in which the registry touches files: POSIX calls that follow no symbolic link in
/// a path's last component, name the path in every error, and announce every change first.
package struct FileLayer: Sendable {
    /// Called before each change; what it throws stops that change.
    package var willPerform: @Sendable (DiskOperation) throws -> Void

    package init(willPerform: @escaping @Sendable (DiskOperation) throws -> Void = { _ in }) {
        self.willPerform = willPerform
    }

    /// Does nothing if the directory is there.
    func createDirectory(_ path: String) throws {
        try willPerform(.createDirectory(path))
        if mkdir(path, 0o700) == 0 { return }
        let code = errno
        if code == EEXIST, try kind(of: path) == .directory { return }
        throw Self.failure("cannot create folder", path, code)
    }

    func createFile(_ path: String) throws -> OutputFile {
        try willPerform(.createFile(path))
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Self.failure("cannot create", path, errno) }
        return OutputFile(descriptor: descriptor, path: path, layer: self)
    }

    /// Makes the entries of a directory durable.
    func syncDirectory(_ path: String) throws {
        try willPerform(.syncDirectory(path))
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Self.failure("cannot open folder", path, errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw Self.failure("cannot sync folder", path, errno) }
    }

    /// Makes the bytes of a file durable that something else wrote.
    func syncFile(_ path: String) throws {
        try willPerform(.syncFile(path))
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { throw Self.failure("cannot open", path, errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw Self.failure("cannot sync", path, errno) }
    }

    func rename(_ source: String, to destination: String) throws {
        try willPerform(.rename(source, to: destination))
        guard Foundation.rename(source, destination) == 0 else {
            throw Self.failure("cannot rename to \(destination)", source, errno)
        }
    }

    /// Removes a file, link or folder with all it holds; links are removed, never followed.
    func removeTree(_ path: String) throws {
        guard let kind = try kind(of: path) else { return }
        if kind == .directory {
            for child in try children(of: path) { try removeTree(path + "/" + child) }
        }
        try willPerform(.remove(path))
        let result = kind == .directory ? rmdir(path) : unlink(path)
        guard result == 0 || errno == ENOENT else {
            throw Self.failure("cannot remove", path, errno)
        }
    }

    /// Names in a folder, sorted by their bytes, without `.` and `..`.
    func children(of path: String) throws -> [String] {
        guard let directory = opendir(path) else {
            throw Self.failure("cannot read folder", path, errno)
        }
        defer { closedir(directory) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(directory) else {
                guard errno == 0 else { throw Self.failure("cannot read folder", path, errno) }
                break
            }
            // Safe because readdir gives a name that ends in NUL and lives until the next call.
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }
    }

    enum EntryKind { case file, directory, other }

    /// Nil if nothing is there.
    func kind(of path: String) throws -> EntryKind? { try status(of: path)?.kind }

    /// Kind and size without following a link; nil if nothing is there.
    func status(of path: String) throws -> (kind: EntryKind, byteCount: Int)? {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw Self.failure("cannot look at", path, errno)
        }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return (.file, Int(status.st_size))
        case S_IFDIR: return (.directory, 0)
        default: return (.other, 0)
        }
    }

    /// Which file an entry or descriptor is, whatever its path.
    struct Identity: Equatable, Sendable {
        let device: UInt64
        let inode: UInt64

        fileprivate init(_ status: stat) {
            device = UInt64(status.st_dev)
            inode = UInt64(status.st_ino)
        }
    }

    /// Nil if nothing is there.
    func identity(of path: String) throws -> Identity? {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw Self.failure("cannot look at", path, errno)
        }
        return Identity(status)
    }

    static func identity(of descriptor: Int32) -> Identity? {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? Identity(status) : nil
    }

    /// Opens a plain file; a link, pipe or device is refused.
    func openFile(_ path: String) throws -> InputFile {
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ELOOP { throw RegistryError(.invalid, "\(path) is a link") }
            throw Self.failure("cannot open", path, errno)
        }
        let file = InputFile(descriptor: descriptor, path: path)
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw Self.failure("cannot look at", path, errno)
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw RegistryError(.invalid, "\(path) is not a plain file")
        }
        return file
    }

    /// The whole of a small file.
    func readFile(_ path: String, maxByteCount: Int) throws -> [UInt8] {
        let file = try openFile(path)
        var bytes: [UInt8] = []
        while let chunk = try file.read() {
            guard bytes.count + chunk.count <= maxByteCount else {
                throw RegistryError(.tooLarge, "\(path) is larger than \(maxByteCount) bytes")
            }
            bytes += chunk
        }
        return bytes
    }

    static func failure(_ what: String, _ path: String, _ code: Int32) -> RegistryError {
        let kind: RegistryError.Kind =
            switch code {
            case ENOSPC, EDQUOT, EFBIG: .full
            case EMFILE, ENFILE: .busy
            default: .storage
            }
        return RegistryError(kind, "\(what) \(path): \(String(cString: strerror(code)))")
    }
}

/// The absolute path behind all links, or nil if nothing is there.
func realPath(_ path: String) -> String? {
    guard let resolved = realpath(path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
}

/// A new file being written; closed when let go.
final class OutputFile {
    let path: String
    private(set) var byteCount = 0
    private let descriptor: Int32
    private let layer: FileLayer

    fileprivate init(descriptor: Int32, path: String, layer: FileLayer) {
        self.descriptor = descriptor
        self.path = path
        self.layer = layer
    }

    deinit { close(descriptor) }

    func write(_ bytes: ArraySlice<UInt8>) throws {
        try layer.willPerform(.write(path))
        // Safe because write(2) reads at most the rest of the buffer, which outlives the call.
        try bytes.withUnsafeBytes { buffer in
            var rest = buffer[...]
            while !rest.isEmpty {
                let chunk = UnsafeRawBufferPointer(rebasing: rest)
                let count = Foundation.write(descriptor, chunk.baseAddress, chunk.count)
                if count < 0 {
                    if errno == EINTR { continue }
                    throw FileLayer.failure("cannot write", path, errno)
                }
                rest = rest.dropFirst(count)
            }
        }
        byteCount += bytes.count
    }

    func sync() throws {
        try layer.willPerform(.syncFile(path))
        guard fsync(descriptor) == 0 else { throw FileLayer.failure("cannot sync", path, errno) }
    }
}

/// A plain file open for reading from its start; closed when let go.
final class InputFile {
    static let chunkByteCount = 256 << 10

    let path: String
    private let descriptor: Int32

    fileprivate init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    deinit { close(descriptor) }

    /// The next bytes, at most `chunkByteCount`; nil at the end.
    func read() throws -> [UInt8]? {
        let path = path
        let descriptor = descriptor
        // Safe because read(2) writes at most the buffer's capacity and tells how much it wrote.
        let chunk = try [UInt8](unsafeUninitializedCapacity: Self.chunkByteCount) { buffer, count in
            while true {
                let read = Foundation.read(descriptor, buffer.baseAddress, buffer.count)
                if read >= 0 {
                    count = read
                    return
                }
                if errno != EINTR { throw FileLayer.failure("cannot read", path, errno) }
            }
        }
        return chunk.isEmpty ? nil : chunk
    }
}
