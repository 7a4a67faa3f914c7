import Foundation
import LorryTensor

/// What a file of packed weights says about itself.
///
/// ```
/// 0          magic "LORRYPW" and a zero
/// 8          u32 version of this layout
/// 12         u32 bytes of the header
/// 16         u64 XXH3 of the header
/// 24         the header, JSON
/// 2 MiB      the payload: a PackingPlan's block of memory
/// …          u64 XXH3 of each MiB of the payload, little-endian like all numbers here
/// ```
struct WeightCacheHeader: Codable, Equatable, Sendable {
    struct SourceFile: Codable, Equatable, Sendable {
        var name: String
        var identity: FileIdentity
    }

    struct Matrix: Codable, Equatable, Sendable {
        /// Names in the checkpoint, in the order in which they are stacked.
        var tensors: [String]
        var outFeatures: Int
        var inFeatures: Int
        var layout: String
        var offset: Int
        var byteCount: Int
    }

    /// Path of the model's folder.
    var model: String
    /// The files whose bytes `digest` is of, as they were then.
    var files: [SourceFile]
    /// Of the checkpoint's content.
    var digest: String
    var matrices: [Matrix]
    var payloadByteCount: Int
    /// Over all checksums behind the payload.
    var checksumOfChecksums: String

    static let magic: [UInt8] = Array("LORRYPW\0".utf8)
    static let version: UInt32 = 1
    static let payloadOffset = 2 << 20
    /// Payload bytes that one checksum covers.
    static let chunkByteCount = 1 << 20
    /// Bytes before the JSON.
    static let prefixByteCount = 24

    /// Chunks of the payload, the last one shorter.
    static func chunkCount(payloadByteCount: Int) -> Int {
        (payloadByteCount + chunkByteCount - 1) / chunkByteCount
    }

    static func fileByteCount(payloadByteCount: Int) -> Int {
        payloadOffset + payloadByteCount + 8 * chunkCount(payloadByteCount: payloadByteCount)
    }

    /// The bytes from the file's start on.
    func encoded() throws(WeightCacheFault) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let json = try? encoder.encode(self),
            json.count <= Self.payloadOffset - Self.prefixByteCount
        else { throw WeightCacheFault("the header would be too large") }
        let checksum = json.withUnsafeBytes { Checksum.of($0) }
        var bytes = Self.magic
        withUnsafeBytes(of: Self.version.littleEndian) { bytes += $0 }
        withUnsafeBytes(of: UInt32(json.count).littleEndian) { bytes += $0 }
        withUnsafeBytes(of: checksum.littleEndian) { bytes += $0 }
        return bytes + json
    }
}

extension WeightCacheHeader {
    /// Reads the bytes from the file's start on, at most `payloadOffset` of them.
    ///
    /// - Throws: `WeightCacheFault` when they are damaged or of another version.
    init(decoding bytes: UnsafeRawBufferPointer) throws(WeightCacheFault) {
        guard bytes.count >= Self.prefixByteCount, bytes.starts(with: Self.magic) else {
            throw WeightCacheFault("is no file of packed weights")
        }
        let version = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
        guard version == Self.version else {
            throw WeightCacheFault("has version \(version), this program \(Self.version)")
        }
        let count = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
        let checksum = UInt64(
            littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
        guard Int(count) <= bytes.count - Self.prefixByteCount else {
            throw WeightCacheFault("is cut off within its header")
        }
        let json = UnsafeRawBufferPointer(
            rebasing: bytes[Self.prefixByteCount..<Self.prefixByteCount + Int(count)])
        guard Checksum.of(json) == checksum,
            let header = try? JSONDecoder().decode(Self.self, from: Data(json))
        else { throw WeightCacheFault("has a damaged header") }
        self = header
    }
}

/// Why a file of packed weights cannot be used or written.
package struct WeightCacheFault: Error, Sendable {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }

    /// The last system call's reason.
    static func system(_ what: String) -> WeightCacheFault {
        WeightCacheFault("\(what): \(String(cString: strerror(errno)))")
    }
}

extension PackingPlan {
    var cachedMatrices: [WeightCacheHeader.Matrix] {
        matrices.map {
            WeightCacheHeader.Matrix(
                tensors: $0.tensors.map(\.name), outFeatures: $0.shape.outFeatures,
                inFeatures: $0.shape.inFeatures, layout: $0.shape.format.packedLayout,
                offset: $0.offset, byteCount: $0.shape.byteCount)
        }
    }
}
