import CZlib

/// Expands a gzip body that is pushed in pieces (RFC 1952), members one after another included.
/// zlib checks each member's CRC and length.
final class Gunzip {
    static let magic: [UInt8] = [0x1F, 0x8B]
    private static let outputByteCount = 128 << 10

    // Safe because zlib's state points back at this structure, so it has an address of its own
    // from init to deinit, and every buffer handed over outlives the call that uses it.
    private let stream: UnsafeMutablePointer<z_stream>
    private var atMemberEnd = false

    init() throws(RegistryError) {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // 16 asks for the gzip wrapper alone.
        let result = inflateInit2_(
            stream, 16 + MAX_WBITS, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
        guard result == Z_OK else {
            stream.deallocate()
            throw RegistryError(.storage, "zlib does not start: error \(result)")
        }
    }

    deinit {
        inflateEnd(stream)
        stream.deallocate()
    }

    /// - Throws: `invalid` if the data is damaged, or whatever `emit` throws.
    func push(_ bytes: ArraySlice<UInt8>, emit: (ArraySlice<UInt8>) throws -> Void) throws {
        var rest = bytes
        while !rest.isEmpty {
            if atMemberEnd {
                inflateReset(stream)
                atMemberEnd = false
            }
            rest = try inflatePiece(rest, emit)
        }
    }

    /// - Throws: if the body ends inside a member.
    func finish() throws(RegistryError) {
        guard atMemberEnd else { throw RegistryError(.invalid, "the gzip body is cut short") }
    }

    /// Expands until the input is used up or a member ends; returns what is left of the input.
    private func inflatePiece(
        _ input: ArraySlice<UInt8>, _ emit: (ArraySlice<UInt8>) throws -> Void
    ) throws -> ArraySlice<UInt8> {
        var rest = input
        var outputIsFull = true
        while !atMemberEnd && (outputIsFull || !rest.isEmpty) {
            var result = Z_OK
            var used = 0
            let output = rest.withUnsafeBytes { source in
                [UInt8](unsafeUninitializedCapacity: Self.outputByteCount) { target, count in
                    let length = min(source.count, 1 << 30)
                    stream.pointee.next_in = UnsafeMutablePointer(
                        mutating: source.bindMemory(to: UInt8.self).baseAddress)
                    stream.pointee.avail_in = UInt32(length)
                    stream.pointee.next_out = target.baseAddress
                    stream.pointee.avail_out = UInt32(target.count)
                    result = inflate(stream, Z_NO_FLUSH)
                    used = length - Int(stream.pointee.avail_in)
                    count = target.count - Int(stream.pointee.avail_out)
                }
            }
            // A buffer error only says that there was nothing to do.
            guard result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR else {
                throw RegistryError(.invalid, "the gzip body is damaged")
            }
            rest = rest.dropFirst(used)
            outputIsFull = output.count == Self.outputByteCount
            atMemberEnd = result == Z_STREAM_END
            if !output.isEmpty { try emit(output[...]) }
            if result == Z_BUF_ERROR { break }
        }
        return rest
    }
}
