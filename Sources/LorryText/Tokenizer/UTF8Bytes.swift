/// Reading and writing scalars in arrays of UTF-8 bytes.
enum UTF8Bytes {
    static let replacement: [UInt8] = [0xEF, 0xBF, 0xBD]

    static func append(_ scalar: Unicode.Scalar, to output: inout [UInt8]) {
        let value = scalar.value
        switch value {
        case 0..<0x80:
            output.append(UInt8(truncatingIfNeeded: value))
        case 0x80..<0x800:
            output.append(UInt8(truncatingIfNeeded: 0xC0 | value >> 6))
            output.append(UInt8(truncatingIfNeeded: 0x80 | value & 0x3F))
        case 0x800..<0x10000:
            output.append(UInt8(truncatingIfNeeded: 0xE0 | value >> 12))
            output.append(UInt8(truncatingIfNeeded: 0x80 | value >> 6 & 0x3F))
            output.append(UInt8(truncatingIfNeeded: 0x80 | value & 0x3F))
        default:
            output.append(UInt8(truncatingIfNeeded: 0xF0 | value >> 18))
            output.append(UInt8(truncatingIfNeeded: 0x80 | value >> 12 & 0x3F))
            output.append(UInt8(truncatingIfNeeded: 0x80 | value >> 6 & 0x3F))
            output.append(UInt8(truncatingIfNeeded: 0x80 | value & 0x3F))
        }
    }

    static func bytes(of scalar: Unicode.Scalar) -> [UInt8] {
        var output: [UInt8] = []
        append(scalar, to: &output)
        return output
    }

    /// Length of the sequence that a lead byte announces; 1 for a byte that is not one.
    @inline(__always)
    static func length(lead: UInt8) -> Int {
        if lead < 0xC0 { return 1 }
        if lead < 0xE0 { return 2 }
        return lead < 0xF0 ? 3 : 4
    }

    /// The scalar at `index` of valid UTF-8, and its length in bytes.
    @inline(__always)
    static func scalar(_ bytes: [UInt8], at index: Int) -> (scalar: Unicode.Scalar, length: Int) {
        let lead = bytes[index]
        if lead < 0x80 { return (Unicode.Scalar(lead), 1) }
        let length = length(lead: lead)
        guard index + length <= bytes.count else { return ("\u{FFFD}", 1) }
        var value = UInt32(lead) & (0xFF >> UInt32(length + 1))
        for offset in 1..<max(length, 2) where offset < length {
            value = value << 6 | UInt32(bytes[index + offset] & 0x3F)
        }
        return (Unicode.Scalar(value) ?? "\u{FFFD}", length)
    }

    /// The scalar that ends just before `index` of valid UTF-8.
    static func scalar(_ bytes: [UInt8], before index: Int) -> (scalar: Unicode.Scalar, length: Int)
    {
        var start = index - 1
        while start > 0, bytes[start] & 0xC0 == 0x80 { start -= 1 }
        return scalar(bytes, at: start)
    }

    /// What stands at the start of possibly broken UTF-8 (Unicode 16, table 3-7).
    enum Prefix: Equatable {
        /// A whole scalar of so many bytes.
        case whole(Int)
        /// So many bytes that can no longer become a scalar: the maximal subpart, one U+FFFD.
        case broken(Int)
        /// The bytes end inside a scalar that can still become whole.
        case incomplete
    }

    static func prefix(_ bytes: [UInt8], at index: Int, end: Int) -> Prefix {
        let lead = bytes[index]
        if lead < 0x80 { return .whole(1) }
        var low: UInt8 = 0x80
        var high: UInt8 = 0xBF
        let needed: Int
        switch lead {
        case 0xC2...0xDF: needed = 2
        case 0xE0: (needed, low) = (3, 0xA0)
        case 0xED: (needed, high) = (3, 0x9F)
        case 0xE1...0xEF: needed = 3
        case 0xF0: (needed, low) = (4, 0x90)
        case 0xF4: (needed, high) = (4, 0x8F)
        case 0xF1...0xF3: needed = 4
        default: return .broken(1)
        }
        for offset in 1..<needed {
            if index + offset >= end { return .incomplete }
            let byte = bytes[index + offset]
            if byte < low || byte > high { return .broken(offset) }
            (low, high) = (0x80, 0xBF)
        }
        return .whole(needed)
    }

    static func isValid(_ bytes: [UInt8]) -> Bool {
        var index = 0
        while index < bytes.count {
            guard case .whole(let length) = prefix(bytes, at: index, end: bytes.count) else {
                return false
            }
            index += length
        }
        return true
    }
}
