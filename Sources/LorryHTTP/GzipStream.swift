import CZlib
import NIOCore

/// zlib failed, or its input is no gzip.
package struct GzipError: Error, Equatable {
    package let code: Int32
}

/// One gzip stream in one direction (RFC 1952), fed and drained piece by piece.
///
/// Not Sendable: one task owns it.
package final class GzipStream {
    package enum Direction: Sendable { case compress, decompress }

    /// zlib's state. Safe because it is allocated once, never moves (zlib keeps its address), is
    /// freed once in `deinit`, and its input and output pointers are set only during a call.
    private let stream: UnsafeMutablePointer<z_stream>
    private let direction: Direction
    /// The end of the gzip stream was written or read.
    package private(set) var isFinished = false

    package init(_ direction: Direction) throws(GzipError) {
        self.direction = direction
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // 15 window bits, and 16 to ask for the gzip wrapper.
        let windowBits: Int32 = 15 + 16
        let size = Int32(MemoryLayout<z_stream>.size)
        let code =
            switch direction {
            case .compress:
                deflateInit2_(
                    stream, 5, Z_DEFLATED, windowBits, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, size)
            case .decompress: inflateInit2_(stream, windowBits, ZLIB_VERSION, size)
            }
        guard code == Z_OK else { throw GzipError(code: code) }
    }

    deinit {
        switch direction {
        case .compress: deflateEnd(stream)
        case .decompress: inflateEnd(stream)
        }
        stream.deinitialize(count: 1)
        stream.deallocate()
    }

    /// Works on `input` until it is used up or `limit` bytes came out; call again while output
    /// comes.
    ///
    /// - Parameter isLast: no input follows this one.
    /// - Returns: the next piece of output, of at most `limit` bytes.
    package func process(
        _ input: inout ByteBuffer, isLast: Bool, limit: Int = 16 * 1024
    ) throws(GzipError) -> ByteBuffer {
        var output = ByteBuffer()
        guard !isFinished else { return output }
        var code = Z_OK
        output.writeWithUnsafeMutableBytes(minimumWritableBytes: limit) { target in
            let capacity = min(limit, target.count)
            stream.pointee.next_out = target.bindMemory(to: UInt8.self).baseAddress
            stream.pointee.avail_out = UInt32(capacity)
            input.readWithUnsafeReadableBytes { source in
                let bytes = source.bindMemory(to: UInt8.self).baseAddress
                // zlib does not write through its input pointer.
                stream.pointee.next_in = UnsafeMutablePointer(mutating: bytes)
                stream.pointee.avail_in = UInt32(clamping: source.count)
                switch direction {
                case .compress: code = deflate(stream, isLast ? Z_FINISH : Z_NO_FLUSH)
                case .decompress: code = inflate(stream, Z_NO_FLUSH)
                }
                return source.count - Int(stream.pointee.avail_in)
            }
            return capacity - Int(stream.pointee.avail_out)
        }
        stream.pointee.next_in = nil
        stream.pointee.next_out = nil
        isFinished = code == Z_STREAM_END
        // Z_BUF_ERROR says only that there was nothing to do.
        guard [Z_OK, Z_STREAM_END, Z_BUF_ERROR].contains(code) else { throw GzipError(code: code) }
        return output
    }
}
