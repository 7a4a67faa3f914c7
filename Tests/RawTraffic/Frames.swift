/// HTTP/2 as raw bytes, right or wrong: nothing here checks what it is told to write.
public enum Frame {
    /// The client's preface and empty SETTINGS (RFC 9113 §3.4).
    public static let opening = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + settings([])

    public static let endStream: UInt8 = 0x1
    public static let endHeaders: UInt8 = 0x4
    public static let padded: UInt8 = 0x8
    public static let hasPriority: UInt8 = 0x20

    /// A frame (RFC 9113 §4.1). - Parameter length: as told to the peer; the payload's where nil.
    public static func raw(
        type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8] = [],
        length: Int? = nil
    ) -> [UInt8] {
        let length = length ?? payload.count
        return [UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255)]
            + [type, flags] + integer(stream) + payload
    }

    public static func data(
        _ payload: [UInt8], stream: UInt32, flags: UInt8 = 0
    ) -> [UInt8] { raw(type: 0, flags: flags, stream: stream, payload) }

    public static func headers(
        _ block: [UInt8], stream: UInt32, flags: UInt8 = endHeaders | endStream
    ) -> [UInt8] { raw(type: 1, flags: flags, stream: stream, block) }

    public static func priority(stream: UInt32, dependsOn: UInt32) -> [UInt8] {
        raw(type: 2, stream: stream, integer(dependsOn) + [15])
    }

    public static func reset(stream: UInt32, code: UInt32 = 8) -> [UInt8] {
        raw(type: 3, stream: stream, integer(code))
    }

    public static func settings(_ entries: [(id: UInt16, value: UInt32)]) -> [UInt8] {
        raw(
            type: 4,
            entries.flatMap { [UInt8($0.id >> 8), UInt8($0.id & 255)] + integer($0.value) })
    }

    public static let settingsAcknowledgement = raw(type: 4, flags: 1)

    public static func pushPromise(stream: UInt32, promised: UInt32) -> [UInt8] {
        raw(type: 5, flags: endHeaders, stream: stream, integer(promised) + Block.get("/"))
    }

    public static func ping(flags: UInt8 = 0) -> [UInt8] {
        raw(type: 6, flags: flags, [UInt8](repeating: 0, count: 8))
    }

    public static func goAway() -> [UInt8] { raw(type: 7, integer(0) + integer(0)) }

    public static func windowUpdate(stream: UInt32, by increment: UInt32) -> [UInt8] {
        raw(type: 8, stream: stream, integer(increment))
    }

    public static func continuation(
        _ block: [UInt8], stream: UInt32, flags: UInt8 = 0
    ) -> [UInt8] { raw(type: 9, flags: flags, stream: stream, block) }

    public static func priorityUpdate(stream: UInt32) -> [UInt8] {
        raw(type: 16, integer(stream) + Array("u=1".utf8))
    }

    static func integer(_ value: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(value >> $0 & 255) }
    }

    /// Whole frames at the start of `bytes`: type, flags and payload.
    public static func parse(_ bytes: [UInt8]) -> [(type: UInt8, flags: UInt8, payload: [UInt8])] {
        var frames: [(type: UInt8, flags: UInt8, payload: [UInt8])] = []
        var rest = bytes[...]
        while rest.count >= 9 {
            let header = Array(rest.prefix(9))
            let length = Int(header[0]) << 16 | Int(header[1]) << 8 | Int(header[2])
            guard rest.count >= 9 + length else { break }
            frames.append((header[3], header[4], Array(rest.dropFirst(9).prefix(length))))
            rest = rest.dropFirst(9 + length)
        }
        return frames
    }

    /// The error code of the last GOAWAY in `bytes` (RFC 9113 §6.8).
    public static func goAwayCode(in bytes: [UInt8]) -> UInt32? {
        parse(bytes).last { $0.type == 7 && $0.payload.count >= 8 }.map { frame in
            frame.payload[4..<8].reduce(0) { $0 << 8 | UInt32($1) }
        }
    }
}

/// Header blocks in HPACK (RFC 7541), without Huffman coding.
public enum Block {
    /// `:scheme: http` and `:authority: a`.
    private static let origin: [UInt8] = [0x86] + literal(nameIndex: 1, "a")

    public static func get(_ path: String) -> [UInt8] {
        [0x82] + origin + literal(nameIndex: 4, path)
    }

    public static func post(_ path: String) -> [UInt8] {
        [0x83] + origin + literal(nameIndex: 4, path)
    }

    /// A field that is not to be indexed (§6.2.2).
    public static func field(_ name: String, _ value: String) -> [UInt8] {
        [0] + string(name) + string(value)
    }

    /// A field that enters the dynamic table (§6.2.1).
    public static func indexedField(_ name: String, _ value: String) -> [UInt8] {
        [0x40] + string(name) + string(value)
    }

    /// - Parameter nameIndex: below 15, in the static table.
    static func literal(nameIndex: UInt8, _ value: String) -> [UInt8] {
        [nameIndex] + string(value)
    }

    private static func string(_ text: String) -> [UInt8] {
        integer(text.utf8.count, prefixBits: 7) + Array(text.utf8)
    }

    /// §5.1.
    private static func integer(_ value: Int, prefixBits: Int) -> [UInt8] {
        let limit = 1 << prefixBits - 1
        guard value >= limit else { return [UInt8(value)] }
        var bytes = [UInt8(limit)]
        var rest = value - limit
        while rest >= 128 {
            bytes.append(UInt8(rest & 127 | 128))
            rest >>= 7
        }
        return bytes + [UInt8(rest)]
    }
}
