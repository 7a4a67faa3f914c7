import CXXHash

/// 128-bit XXH3 of some bytes, coded as 32 hexadecimal digits. It finds what changed by accident,
/// at the speed of memory; who could forge it could as well change what it is compared with.
/// https://github.com/Cyan4973/xxHash
public struct ContentChecksum: Hashable, Sendable {
    private let high: UInt64
    private let low: UInt64

    public init(of bytes: UnsafeRawBufferPointer) {
        let hash = XXH3_128bits(bytes.baseAddress, bytes.count)
        (high, low) = (hash.high64, hash.low64)
    }

    fileprivate init(_ hash: XXH128_hash_t) { (high, low) = (hash.high64, hash.low64) }

    /// Nil where the text is not 32 hexadecimal digits.
    public init?(hexadecimal text: String) {
        guard text.utf8.count == 32, text.utf8.allSatisfy({ $0 != UInt8(ascii: "+") }),
            let high = UInt64(text.prefix(16), radix: 16),
            let low = UInt64(text.suffix(16), radix: 16)
        else { return nil }
        (self.high, self.low) = (high, low)
    }

    public var hexadecimal: String {
        Checksum.hexadecimal(high) + Checksum.hexadecimal(low)
    }

    /// The checksum of bytes that come piece by piece.
    ///
    /// Not Sendable: one thread owns it.
    public final class Stream {
        private let state: OpaquePointer

        public init() {
            guard let state = XXH3_createState(), XXH3_128bits_reset(state) == XXH_OK else {
                preconditionFailure("no memory for some hundred bytes")
            }
            self.state = state
        }

        deinit { XXH3_freeState(state) }

        public func update(_ bytes: UnsafeRawBufferPointer) {
            // Without a secret of the caller's own it has nothing to refuse.
            _ = XXH3_128bits_update(state, bytes.baseAddress, bytes.count)
        }

        public var checksum: ContentChecksum { ContentChecksum(XXH3_128bits_digest(state)) }
    }
}

extension ContentChecksum: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let value = Self(hexadecimal: try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "not 32 hexadecimal digits")
        }
        self = value
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(hexadecimal)
    }
}
