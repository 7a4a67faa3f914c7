import CXXHash
import Foundation

/// The files of a checkpoint as the key of what was made from them.
struct CheckpointSource: Sendable {
    let shards: [MappedFile]

    /// Bytes that one task of `digest` hashes.
    private static let pieceByteCount = 4 << 20

    /// Names and identities of the files when they were mapped.
    var files: [WeightCacheHeader.SourceFile] {
        shards.map {
            WeightCacheHeader.SourceFile(
                name: URL(filePath: $0.path).lastPathComponent, identity: $0.identity)
        }
    }

    /// Whether the paths still name the files that were mapped, unchanged.
    var isUnchanged: Bool {
        shards.allSatisfy { FileIdentity(path: $0.path) == $0.identity }
    }

    /// Waits until a later change of a file must show in its identity, some milliseconds at most.
    ///
    /// - Returns: false where that would take longer, or a file has changed since it was mapped.
    func settle() -> Bool {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let wait = shards.map { $0.identity.timeToSettle(now: now) }.max() ?? .zero
        guard wait <= .milliseconds(100) else { return false }
        if wait > .zero { Thread.sleep(forTimeInterval: wait / .seconds(1)) }
        return isUnchanged
    }

    /// 128-bit XXH3 of the files' bytes: over sizes and hashes of pieces, in order. It tells apart
    /// what differs by accident; who chooses the model's files is trusted.
    ///
    /// - Parameter run: runs `body(0) … body(count - 1)` in any order, on any threads.
    func digest(run: (_ count: Int, _ body: (Int) -> Void) -> Void) -> String {
        var pieces: [UnsafeRawBufferPointer] = []
        for shard in shards {
            for start in stride(from: 0, to: shard.bytes.count, by: Self.pieceByteCount) {
                let end = min(start + Self.pieceByteCount, shard.bytes.count)
                pieces.append(UnsafeRawBufferPointer(rebasing: shard.bytes[start..<end]))
            }
        }
        var words = shards.map { UInt64($0.bytes.count) }
        let headCount = words.count
        words += [UInt64](repeating: 0, count: 2 * pieces.count)
        words.withUnsafeMutableBufferPointer { words in
            // Safe because each piece writes two words of its own.
            nonisolated(unsafe) let hashes = words
            run(pieces.count) { index in
                let hash = XXH3_128bits(pieces[index].baseAddress, pieces[index].count)
                hashes[headCount + 2 * index] = hash.low64
                hashes[headCount + 2 * index + 1] = hash.high64
            }
        }
        let hash = words.withUnsafeBytes { XXH3_128bits($0.baseAddress, $0.count) }
        return Checksum.hexadecimal(hash.high64) + Checksum.hexadecimal(hash.low64)
    }
}

/// XXH3 with 64 bits: finds damage, not forgery. https://github.com/Cyan4973/xxHash
enum Checksum {
    static func of(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        XXH3_64bits(bytes.baseAddress, bytes.count)
    }

    static func of(_ text: String) -> UInt64 {
        Array(text.utf8).withUnsafeBytes { of($0) }
    }

    /// 16 digits.
    static func hexadecimal(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
