import Foundation
import LorryTensor
import Synchronization

/// An open file of packed weights. Closed with its last reference.
final class WeightCacheReader: Sendable {
    let header: WeightCacheHeader
    private let descriptor: Int32

    /// Chunks read between two calls of a progress closure.
    private static let sliceChunkCount = 64

    /// Opens a file and checks its header and its size.
    ///
    /// - Returns: nil where there is no file.
    static func open(_ path: String) throws(WeightCacheFault) -> WeightCacheReader? {
        let descriptor = Foundation.open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw .system("cannot be opened")
        }
        do {
            return WeightCacheReader(
                header: try readHeader(descriptor), descriptor: descriptor)
        } catch {
            close(descriptor)
            throw error
        }
    }

    private init(header: WeightCacheHeader, descriptor: Int32) {
        self.header = header
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    private static func readHeader(
        _ descriptor: Int32
    ) throws(WeightCacheFault) -> WeightCacheHeader {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .system("cannot be looked at") }
        guard status.st_mode & S_IFMT == S_IFREG else { throw WeightCacheFault("is no plain file") }
        let count = min(Int(status.st_size), WeightCacheHeader.payloadOffset)
        var bytes = [UInt8](repeating: 0, count: count)
        let header: WeightCacheHeader
        do {
            header = try bytes.withUnsafeMutableBytes { buffer in
                try read(descriptor, into: buffer, at: 0)
                return try WeightCacheHeader(decoding: UnsafeRawBufferPointer(buffer))
            }
        } catch {
            throw (error as? WeightCacheFault) ?? WeightCacheFault("\(error)")
        }
        // A size beyond the file's own cannot be right, and would overflow below.
        guard header.payloadByteCount >= 0, header.payloadByteCount <= status.st_size,
            Int(status.st_size)
                == WeightCacheHeader.fileByteCount(payloadByteCount: header.payloadByteCount)
        else { throw WeightCacheFault("has another size than its header says") }
        return header
    }

    /// Maps the payload and checks every chunk of it, on all threads.
    ///
    /// - Parameter progress: called with the share of bytes done, from 0 to 1.
    /// - Throws: `WeightCacheFault` for a mapping that is refused or a chunk that is damaged.
    func mapPayload(
        pool: WorkerPool, progress: (Double) -> Void
    ) throws(WeightCacheFault) -> PackedMemory {
        let checksums = try readChecksums()
        guard
            let memory = PackedMemory(
                mapping: descriptor, offset: WeightCacheHeader.payloadOffset,
                byteCount: header.payloadByteCount)
        else { throw .system("cannot be mapped") }
        let damaged = Mutex<Int?>(nil)
        for slice in stride(from: 0, to: checksums.count, by: Self.sliceChunkCount) {
            progress(Double(slice) / Double(checksums.count))
            pool.run(taskCount: min(Self.sliceChunkCount, checksums.count - slice)) { task in
                let start = (slice + task) * WeightCacheHeader.chunkByteCount
                let range =
                    start..<min(
                        start + WeightCacheHeader.chunkByteCount, header.payloadByteCount)
                memory.populate(range)
                let chunk = UnsafeRawBufferPointer(rebasing: memory.bytes[range])
                guard Checksum.of(chunk) != checksums[slice + task] else { return }
                damaged.withLock { $0 = start }
            }
            if let start = damaged.withLock({ $0 }) {
                throw WeightCacheFault("is damaged in the MiB from byte \(start) of the weights")
            }
        }
        return memory
    }

    private func readChecksums() throws(WeightCacheFault) -> [UInt64] {
        var checksums = [UInt64](
            repeating: 0,
            count: WeightCacheHeader.chunkCount(payloadByteCount: header.payloadByteCount))
        let offset = WeightCacheHeader.payloadOffset + header.payloadByteCount
        let descriptor = descriptor
        let found: UInt64
        do {
            found = try checksums.withUnsafeMutableBytes { buffer in
                try Self.read(descriptor, into: buffer, at: offset)
                return Checksum.of(UnsafeRawBufferPointer(buffer))
            }
        } catch {
            throw (error as? WeightCacheFault) ?? WeightCacheFault("\(error)")
        }
        guard Checksum.hexadecimal(found) == header.checksumOfChecksums else {
            throw WeightCacheFault("has damaged checksums")
        }
        return checksums.map { UInt64(littleEndian: $0) }
    }

    private static func read(
        _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(WeightCacheFault) {
        var done = 0
        while done < buffer.count {
            // Safe because pread writes at most the rest of the buffer.
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let count = pread(descriptor, rest.baseAddress, rest.count, off_t(offset + done))
            if count < 0 {
                if errno == EINTR { continue }
                throw .system("cannot be read")
            }
            guard count > 0 else { throw WeightCacheFault("is cut off") }
            done += count
        }
    }
}
