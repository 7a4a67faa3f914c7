import Foundation
import LorryTensor

/// What is about to be done to the disk. Tests stop the world at any of them.
package enum WeightCacheStep: Equatable, Sendable {
    case createFolder, createFile, allocate
    case write(chunk: Int)
    case writeHeader, syncFile
    case rename, syncFolder, remove
}

/// Writes one file of packed weights, so that it is whole or absent whatever happens meanwhile.
///
/// The bytes go to a temporary file, which is locked while it is written and renamed once all of
/// it is on disk. A temporary file without a lock was left by a process that died.
struct WeightCacheWriter {
    let folder: String
    /// Called before each step; what it throws stops there.
    let willPerform: @Sendable (WeightCacheStep) throws(WeightCacheFault) -> Void

    static let temporarySuffix = ".partial"

    /// Chunks after which they are synced, so that the disk never gets all at once.
    private static let syncedChunkCount = 64

    /// - Parameters:
    ///   - header: all but `checksumOfChecksums`.
    ///   - isCancelled: asked before each chunk.
    /// - Throws: `WeightCacheFault`; what was written is removed again.
    func write(
        _ memory: PackedMemory, header: WeightCacheHeader, name: String,
        isCancelled: () -> Bool
    ) throws(WeightCacheFault) {
        try willPerform(.createFolder)
        guard mkdir(folder, 0o700) == 0 || errno == EEXIST else {
            throw .system("cannot create the folder \(folder)")
        }
        removeAbandoned()
        let temporary = "\(folder)/\(UUID().uuidString.lowercased())\(Self.temporarySuffix)"
        try willPerform(.createFile)
        let descriptor = open(
            temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .system("cannot create \(temporary)") }
        defer { close(descriptor) }
        do throws(WeightCacheFault) {
            guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
                throw WeightCacheFault.system("cannot lock \(temporary)")
            }
            try fill(descriptor, memory, header, isCancelled)
            try willPerform(.rename)
            guard rename(temporary, "\(folder)/\(name)") == 0 else {
                throw WeightCacheFault.system("cannot rename \(temporary)")
            }
        } catch {
            unlink(temporary)
            throw error
        }
        try syncFolder()
    }

    private func fill(
        _ descriptor: Int32, _ memory: PackedMemory, _ header: WeightCacheHeader,
        _ isCancelled: () -> Bool
    ) throws(WeightCacheFault) {
        try willPerform(.allocate)
        try Self.reserve(
            descriptor, WeightCacheHeader.fileByteCount(payloadByteCount: memory.byteCount))
        var checksums: [UInt64] = []
        let chunkByteCount = WeightCacheHeader.chunkByteCount
        for start in stride(from: 0, to: memory.byteCount, by: chunkByteCount) {
            guard !isCancelled() else { throw WeightCacheFault("cancelled") }
            try willPerform(.write(chunk: checksums.count))
            let chunk = UnsafeRawBufferPointer(
                rebasing: memory.bytes[start..<min(start + chunkByteCount, memory.byteCount)])
            try Self.write(descriptor, chunk, at: WeightCacheHeader.payloadOffset + start)
            checksums.append(Checksum.of(chunk).littleEndian)
            if checksums.count % Self.syncedChunkCount == 0 { fsync(descriptor) }
        }
        try willPerform(.writeHeader)
        var header = header
        let table = checksums.withUnsafeBytes { Array($0) }
        header.checksumOfChecksums = Checksum.hexadecimal(
            table.withUnsafeBytes { Checksum.of($0) })
        try Self.write(
            descriptor, table, at: WeightCacheHeader.payloadOffset + memory.byteCount)
        try Self.write(descriptor, try header.encoded(), at: 0)
        try willPerform(.syncFile)
        guard fsync(descriptor) == 0 else { throw .system("cannot be synced") }
    }

    /// Puts another header into a file that is there, such as with new identities of the model's
    /// files. A crash in the middle leaves a header whose checksum is wrong.
    func replaceHeader(
        _ header: WeightCacheHeader, name: String
    ) throws(WeightCacheFault) {
        try willPerform(.writeHeader)
        let descriptor = open("\(folder)/\(name)", O_WRONLY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { throw .system("cannot be opened for writing") }
        defer { close(descriptor) }
        try Self.write(descriptor, try header.encoded(), at: 0)
        try willPerform(.syncFile)
        guard fsync(descriptor) == 0 else { throw .system("cannot be synced") }
    }

    /// Removes files of packed weights whose names begin with `prefix`, except `name`.
    ///
    /// - Returns: the paths removed.
    func removeOthers(prefix: String, except name: String) -> [String] {
        names.filter { $0.hasPrefix(prefix) && $0 != name }.compactMap { name in
            let path = "\(folder)/\(name)"
            guard (try? willPerform(.remove)) != nil, unlink(path) == 0 else { return nil }
            return path
        }
    }

    /// Removes what writers that died have left.
    private func removeAbandoned() {
        for name in names where name.hasSuffix(Self.temporarySuffix) {
            let path = "\(folder)/\(name)"
            let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
            guard descriptor >= 0 else { continue }
            // Whoever still writes holds the lock.
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { unlink(path) }
            close(descriptor)
        }
    }

    private var names: [String] {
        (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    }

    /// Makes the rename durable.
    private func syncFolder() throws(WeightCacheFault) {
        try willPerform(.syncFolder)
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .system("cannot open \(folder)") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw .system("cannot sync \(folder)") }
    }

    /// Takes the disk's space at once, so that a full disk is found before anything is written.
    private static func reserve(
        _ descriptor: Int32, _ byteCount: Int
    ) throws(WeightCacheFault) {
        #if os(Linux)
            let code = posix_fallocate(descriptor, 0, off_t(byteCount))
            if code == 0 { return }
            guard code == EOPNOTSUPP || code == EINVAL else {
                throw WeightCacheFault(
                    "needs \(byteCount) bytes of disk: \(String(cString: strerror(code)))")
            }
        #endif
        guard ftruncate(descriptor, off_t(byteCount)) == 0 else { throw .system("cannot grow") }
    }

    private static func write(
        _ descriptor: Int32, _ bytes: [UInt8], at offset: Int
    ) throws(WeightCacheFault) {
        do {
            try bytes.withUnsafeBytes { try write(descriptor, $0, at: offset) }
        } catch {
            throw (error as? WeightCacheFault) ?? WeightCacheFault("\(error)")
        }
    }

    private static func write(
        _ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int
    ) throws(WeightCacheFault) {
        var done = 0
        while done < bytes.count {
            // Safe because pwrite reads at most the rest of the buffer.
            let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
            let count = pwrite(descriptor, rest.baseAddress, rest.count, off_t(offset + done))
            if count < 0 {
                if errno == EINTR { continue }
                throw .system("cannot be written")
            }
            done += count
        }
    }
}
