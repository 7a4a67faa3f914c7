/// Reads JSON (RFC 8259) value by value, without a tree of it: whoever calls says what is expected
/// where, so that nothing is kept that is not wanted.
///
/// Nesting is bounded. Duplicate keys are the caller's to find.
package struct JSONReader {
    private let bytes: [UInt8]
    private let maximumDepth: Int
    private let takesLoneSurrogates: Bool
    private var position = 0
    private var depth = 0

    /// - Parameters:
    ///   - maximumDepth: how deep arrays and objects may nest.
    ///   - takesLoneSurrogates: whether an escaped half of a surrogate pair becomes U+FFFD; else it
    ///     is refused, as no text has it.
    package init(_ bytes: some Collection<UInt8>, maximumDepth: Int, takesLoneSurrogates: Bool) {
        self.bytes = Array(bytes)
        self.maximumDepth = maximumDepth
        self.takesLoneSurrogates = takesLoneSurrogates
    }

    package func fail(_ reason: String) -> StrictJSON.ParseError {
        StrictJSON.ParseError(reason: reason, offset: position)
    }

    private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

    /// The next byte that is no white space; nil at the end.
    package mutating func peek() -> UInt8? {
        while let byte = current {
            guard byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 else { return byte }
            position += 1
        }
        return nil
    }

    private mutating func consume(_ byte: UInt8) -> Bool {
        guard current == byte else { return false }
        position += 1
        return true
    }

    /// - Throws: where anything but white space follows.
    package mutating func expectEnd() throws(StrictJSON.ParseError) {
        guard peek() == nil else { throw fail("unexpected bytes after the value") }
    }

    // MARK: - Objects and arrays

    /// Where a reading of an object or array is: before its first member, or behind one.
    package struct Place {
        fileprivate var isAtStart = true
    }

    /// Goes into the object or array that begins here, whose members `nextKey` or `nextElement`
    /// then give.
    package mutating func enter() throws(StrictJSON.ParseError) -> Place {
        depth += 1
        guard depth <= maximumDepth else { throw fail("nested deeper than \(maximumDepth)") }
        position += 1
        return Place()
    }

    /// The key of an object's next member, whose value is to be read next; nil behind the last.
    package mutating func nextKey(_ place: inout Place) throws(StrictJSON.ParseError) -> String? {
        guard try advance(&place, to: UInt8(ascii: "}"), "expected ',' or '}'") else { return nil }
        guard peek() == UInt8(ascii: "\"") else { throw fail("expected a key") }
        let key = try readString()
        guard peek() == UInt8(ascii: ":") else { throw fail("expected ':'") }
        position += 1
        return key
    }

    /// Whether an array has another element, which is to be read next.
    package mutating func nextElement(_ place: inout Place) throws(StrictJSON.ParseError) -> Bool {
        try advance(&place, to: UInt8(ascii: "]"), "expected ',' or ']'")
    }

    /// False, behind it, where the end is next.
    private mutating func advance(
        _ place: inout Place, to end: UInt8, _ expectation: String
    ) throws(StrictJSON.ParseError) -> Bool {
        let next = peek()
        if place.isAtStart {
            place.isAtStart = false
            guard next == end else { return true }
        } else if next == UInt8(ascii: ",") {
            position += 1
            return true
        } else if next != end {
            throw fail(expectation)
        }
        position += 1
        depth -= 1
        return false
    }

    // MARK: - Words and numbers

    /// Goes past a word such as `null`.
    package mutating func read(_ word: StaticString) throws(StrictJSON.ParseError) {
        let matches = word.withUTF8Buffer { bytes[position...].starts(with: $0) }
        guard matches else { throw fail("unknown word") }
        position += word.utf8CodeUnitCount
    }

    /// A whole number of 0 and up, written in digits alone; nil, going nowhere, for anything else.
    package mutating func readCount() -> Int? {
        guard let first = peek(), Self.isDigit(first) else { return nil }
        let start = position
        _ = skipDigits()
        let isPlain = current.map { !".eE".utf8.contains($0) } ?? true
        let hasLeadingZero = first == UInt8(ascii: "0") && position - start > 1
        guard isPlain, !hasLeadingZero,
            let count = Int(String(decoding: bytes[start..<position], as: UTF8.self))
        else {
            position = start
            return nil
        }
        return count
    }

    /// A number; also `-Infinity`, which Python writes.
    package mutating func readNumber() throws(StrictJSON.ParseError) -> StrictJSON {
        let start = position
        if consume(UInt8(ascii: "-")), current == UInt8(ascii: "I") {
            try read("Infinity")
            return .number(-.infinity)
        }
        let digits = skipDigits()
        guard digits > 0 else { throw fail("unexpected character") }
        let first = bytes[position - digits]
        guard digits == 1 || first != UInt8(ascii: "0") else { throw fail("leading zero") }
        var isInteger = true
        if consume(UInt8(ascii: ".")) {
            isInteger = false
            guard skipDigits() > 0 else { throw fail("expected a digit") }
        }
        if consume(UInt8(ascii: "e")) || consume(UInt8(ascii: "E")) {
            isInteger = false
            if !consume(UInt8(ascii: "+")) { _ = consume(UInt8(ascii: "-")) }
            guard skipDigits() > 0 else { throw fail("expected a digit") }
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let value = Int(text) { return .integer(value) }
        guard let value = Double(text) else { throw fail("not a number") }
        return .number(value)
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }

    private mutating func skipDigits() -> Int {
        let start = position
        while let byte = current, Self.isDigit(byte) { position += 1 }
        return position - start
    }

    // MARK: - Strings

    /// The string that begins here.
    package mutating func readString() throws(StrictJSON.ParseError) -> String {
        position += 1
        let start = position
        // Most strings have no escapes, and are there as they are.
        while let byte = current, byte >= 0x20, byte != UInt8(ascii: "\""),
            byte != UInt8(ascii: "\\")
        {
            position += 1
        }
        var utf8 = bytes[start..<position]
        while let byte = current {
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: utf8, as: UTF8.self) else {
                    throw fail("a string is not valid UTF-8")
                }
                return text
            case UInt8(ascii: "\\"):
                try readEscape(into: &utf8)
            case 0..<0x20:
                throw fail("a control character in a string")
            default:
                utf8.append(byte)
            }
        }
        throw fail("a string does not end")
    }

    private mutating func readEscape(
        into utf8: inout ArraySlice<UInt8>
    ) throws(StrictJSON.ParseError) {
        guard let escape = current else { throw fail("a string does not end") }
        position += 1
        switch escape {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): utf8.append(escape)
        case UInt8(ascii: "b"): utf8.append(0x08)
        case UInt8(ascii: "f"): utf8.append(0x0C)
        case UInt8(ascii: "n"): utf8.append(0x0A)
        case UInt8(ascii: "r"): utf8.append(0x0D)
        case UInt8(ascii: "t"): utf8.append(0x09)
        case UInt8(ascii: "u"): utf8.append(contentsOf: try readUnicodeEscape().utf8)
        default: throw fail("unknown escape")
        }
    }

    private mutating func readUnicodeEscape() throws(StrictJSON.ParseError) -> String {
        let unit = try readHex()
        if (0xD800..<0xDC00).contains(unit), bytes[position...].starts(with: [0x5C, 0x75]) {
            let saved = position
            position += 2
            let low = try readHex()
            if (0xDC00..<0xE000).contains(low) {
                return String(decoding: [unit, low], as: UTF16.self)
            }
            position = saved
        }
        guard takesLoneSurrogates || !(0xD800..<0xE000).contains(unit) else {
            throw fail("a string has half of a surrogate pair")
        }
        return String(decoding: [unit], as: UTF16.self)
    }

    private mutating func readHex() throws(StrictJSON.ParseError) -> UInt16 {
        var value: UInt16 = 0
        for _ in 0..<4 {
            guard let digit = current.flatMap({ Character(Unicode.Scalar($0)).hexDigitValue })
            else {
                throw fail("expected four hexadecimal digits")
            }
            value = value << 4 | UInt16(digit)
            position += 1
        }
        return value
    }
}
