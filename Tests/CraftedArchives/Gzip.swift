import CZlib

/// What zlib says where it does not compress.
package struct GzipFailure: Error {
    package let code: Int32
}

/// One gzip member (RFC 1952).
package func gzip(_ bytes: [UInt8]) throws -> [UInt8] {
    var stream = z_stream()
    let code = deflateInit2_(
        &stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
        Int32(MemoryLayout<z_stream>.size))
    guard code == Z_OK else { throw GzipFailure(code: code) }
    defer { deflateEnd(&stream) }
    var input = bytes
    let bound = Int(deflateBound(&stream, UInt(bytes.count)))
    return input.withUnsafeMutableBufferPointer { source in
        [UInt8](unsafeUninitializedCapacity: bound) { target, count in
            stream.next_in = source.baseAddress
            stream.avail_in = UInt32(source.count)
            stream.next_out = target.baseAddress
            stream.avail_out = UInt32(target.count)
            deflate(&stream, Z_FINISH)
            count = target.count - Int(stream.avail_out)
        }
    }
}
