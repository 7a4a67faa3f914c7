/// GPT-2's printable stand-ins for bytes: a scalar per byte, so that any bytes are text.
enum ByteAlphabet {
    /// The scalar of each byte.
    static let scalars: [Unicode.Scalar] = {
        var next: UInt32 = 256
        return (UInt32(0)..<256).map { byte in
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF:
                return Unicode.Scalar(byte) ?? " "
            default:
                defer { next += 1 }
                return Unicode.Scalar(next) ?? " "
            }
        }
    }()

    /// The UTF-8 bytes of each byte's scalar, one or two: the second is 0 when there is one.
    private static let encoded: [(UInt8, UInt8)] = scalars.map { scalar in
        let bytes = UTF8Bytes.bytes(of: scalar)
        return (bytes[0], bytes.count > 1 ? bytes[1] : 0)
    }

    /// The byte of each scalar below U+0144, -1 for scalars that stand for none.
    private static let decoded: [Int16] = {
        var table = [Int16](repeating: -1, count: 0x144)
        for (byte, scalar) in scalars.enumerated() where Int(scalar.value) < table.count {
            table[Int(scalar.value)] = Int16(byte)
        }
        return table
    }()

    /// Appends the stand-ins of `bytes[start..<end]`.
    static func encode(_ bytes: [UInt8], _ start: Int, _ end: Int, into output: inout [UInt8]) {
        let table = encoded
        for index in start..<end {
            let (first, second) = table[Int(bytes[index])]
            output.append(first)
            if second != 0 { output.append(second) }
        }
    }

    /// Appends the bytes that a token stands for; a token with any other scalar stands for itself.
    static func decode(_ token: [UInt8], into output: inout [UInt8]) {
        let count = output.count
        var index = 0
        while index < token.count {
            let (scalar, length) = UTF8Bytes.scalar(token, at: index)
            guard scalar.value < 0x144, decoded[Int(scalar.value)] >= 0 else {
                output.removeSubrange(count...)
                output.append(contentsOf: token)
                return
            }
            output.append(UInt8(truncatingIfNeeded: decoded[Int(scalar.value)]))
            index += length
        }
    }
}
