/// A JSON value that keeps what Foundation's parser loses: the order of an object's keys and the
/// difference between integers and other numbers.
///
/// Checkpoint and adapter files are untrusted: the parser bounds the nesting depth, refuses
/// duplicate keys and trailing bytes, and reports the byte offset of what is wrong (RFC 8259).
public indirect enum StrictJSON: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([StrictJSON])
    case object(Object)

    /// An object's members in file order.
    public struct Object: Sendable, Equatable {
        public private(set) var members: [(key: String, value: StrictJSON)] = []
        private var index: [String: Int] = [:]

        public subscript(key: String) -> StrictJSON? {
            index[key].map { members[$0].value }
        }

        /// Returns false, changing nothing, where the key is there already.
        mutating func insert(_ key: String, _ value: StrictJSON) -> Bool {
            guard index[key] == nil else { return false }
            index[key] = members.count
            members.append((key, value))
            return true
        }

        public static func == (a: Object, b: Object) -> Bool {
            a.members.count == b.members.count
                && zip(a.members, b.members).allSatisfy { $0.key == $1.key && $0.value == $1.value }
        }
    }

    public struct ParseError: Error, CustomStringConvertible, Sendable {
        public let reason: String
        public let offset: Int
        public var description: String { "invalid JSON at byte \(offset): \(reason)" }
    }

    /// - Parameter maximumDepth: how deep arrays and objects may nest.
    public init(parsing bytes: some Collection<UInt8>, maximumDepth: Int = 64) throws(ParseError) {
        var parser = Parser(bytes: Array(bytes), maximumDepth: maximumDepth)
        self = try parser.parseDocument()
    }

    public var isNull: Bool { self == .null }
    public var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }
    public var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    public var arrayValue: [StrictJSON]? { if case .array(let value) = self { value } else { nil } }
    public var objectValue: Object? { if case .object(let value) = self { value } else { nil } }
    public var integerValue: Int? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int(exactly: value)
        default: nil
        }
    }
    public var numberValue: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }
}

extension StrictJSON {
    private struct Parser {
        let bytes: [UInt8]
        let maximumDepth: Int
        var position = 0

        init(bytes: [UInt8], maximumDepth: Int) {
            self.bytes = bytes
            self.maximumDepth = maximumDepth
        }

        func fail(_ reason: String) -> ParseError { ParseError(reason: reason, offset: position) }

        var current: UInt8? { position < bytes.count ? bytes[position] : nil }

        mutating func skipWhitespace() {
            while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 {
                position += 1
            }
        }

        mutating func consume(_ byte: UInt8) -> Bool {
            guard current == byte else { return false }
            position += 1
            return true
        }

        mutating func parseDocument() throws(ParseError) -> StrictJSON {
            let value = try parseValue(depth: 0)
            skipWhitespace()
            guard position == bytes.count else { throw fail("unexpected bytes after the value") }
            return value
        }

        mutating func parseValue(depth: Int) throws(ParseError) -> StrictJSON {
            guard depth <= maximumDepth else { throw fail("nested deeper than \(maximumDepth)") }
            skipWhitespace()
            switch current {
            case UInt8(ascii: "{"): return try parseObject(depth: depth)
            case UInt8(ascii: "["): return try parseArray(depth: depth)
            case UInt8(ascii: "\""): return .string(try parseString())
            case UInt8(ascii: "t"): return try parseWord("true", .bool(true))
            case UInt8(ascii: "f"): return try parseWord("false", .bool(false))
            case UInt8(ascii: "n"): return try parseWord("null", .null)
            // Python's json writes these three; peft configs may contain Infinity.
            case UInt8(ascii: "N"): return try parseWord("NaN", .number(.nan))
            case UInt8(ascii: "I"): return try parseWord("Infinity", .number(.infinity))
            case nil: throw fail("unexpected end")
            default: return try parseNumber()
            }
        }

        mutating func parseWord(_ word: String, _ value: StrictJSON) throws(ParseError)
            -> StrictJSON
        {
            let utf8 = word.utf8
            guard bytes[position...].starts(with: utf8) else { throw fail("unknown word") }
            position += utf8.count
            return value
        }

        mutating func parseObject(depth: Int) throws(ParseError) -> StrictJSON {
            position += 1
            var object = Object()
            skipWhitespace()
            if consume(UInt8(ascii: "}")) { return .object(object) }
            while true {
                skipWhitespace()
                guard current == UInt8(ascii: "\"") else { throw fail("expected a key") }
                let key = try parseString()
                skipWhitespace()
                guard consume(UInt8(ascii: ":")) else { throw fail("expected ':'") }
                let value = try parseValue(depth: depth + 1)
                guard object.insert(key, value) else { throw fail("duplicate key '\(key)'") }
                skipWhitespace()
                if consume(UInt8(ascii: ",")) { continue }
                guard consume(UInt8(ascii: "}")) else { throw fail("expected ',' or '}'") }
                return .object(object)
            }
        }

        mutating func parseArray(depth: Int) throws(ParseError) -> StrictJSON {
            position += 1
            var values: [StrictJSON] = []
            skipWhitespace()
            if consume(UInt8(ascii: "]")) { return .array(values) }
            while true {
                values.append(try parseValue(depth: depth + 1))
                skipWhitespace()
                if consume(UInt8(ascii: ",")) { continue }
                guard consume(UInt8(ascii: "]")) else { throw fail("expected ',' or ']'") }
                return .array(values)
            }
        }

        mutating func parseNumber() throws(ParseError) -> StrictJSON {
            let start = position
            _ = consume(UInt8(ascii: "-"))
            if current == UInt8(ascii: "I") {
                return try parseWord("Infinity", .number(-.infinity))
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
            if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
                isInteger = false
                position += 1
                if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
                guard skipDigits() > 0 else { throw fail("expected a digit") }
            }
            let text = String(decoding: bytes[start..<position], as: UTF8.self)
            if isInteger, let value = Int(text) { return .integer(value) }
            guard let value = Double(text) else { throw fail("not a number") }
            return .number(value)
        }

        mutating func skipDigits() -> Int {
            let start = position
            while let byte = current, (0x30...0x39).contains(byte) { position += 1 }
            return position - start
        }

        mutating func parseString() throws(ParseError) -> String {
            position += 1
            var utf8: [UInt8] = []
            while let byte = current {
                position += 1
                switch byte {
                case UInt8(ascii: "\""):
                    guard let text = String(validating: utf8, as: UTF8.self) else {
                        throw fail("a string is not valid UTF-8")
                    }
                    return text
                case UInt8(ascii: "\\"):
                    try parseEscape(into: &utf8)
                case 0..<0x20:
                    throw fail("a control character in a string")
                default:
                    utf8.append(byte)
                }
            }
            throw fail("a string does not end")
        }

        mutating func parseEscape(into utf8: inout [UInt8]) throws(ParseError) {
            guard let escape = current else { throw fail("a string does not end") }
            position += 1
            switch escape {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): utf8.append(escape)
            case UInt8(ascii: "b"): utf8.append(0x08)
            case UInt8(ascii: "f"): utf8.append(0x0C)
            case UInt8(ascii: "n"): utf8.append(0x0A)
            case UInt8(ascii: "r"): utf8.append(0x0D)
            case UInt8(ascii: "t"): utf8.append(0x09)
            case UInt8(ascii: "u"): utf8.append(contentsOf: try parseUnicodeEscape().utf8)
            default: throw fail("unknown escape")
            }
        }

        /// A lone surrogate becomes U+FFFD.
        mutating func parseUnicodeEscape() throws(ParseError) -> String {
            let unit = try parseHex()
            if (0xD800..<0xDC00).contains(unit), bytes[position...].starts(with: [0x5C, 0x75]) {
                let saved = position
                position += 2
                let low = try parseHex()
                if (0xDC00..<0xE000).contains(low) {
                    return String(decoding: [unit, low], as: UTF16.self)
                }
                position = saved
            }
            return String(decoding: [unit], as: UTF16.self)
        }

        mutating func parseHex() throws(ParseError) -> UInt16 {
            guard position + 4 <= bytes.count, bytes[position] != UInt8(ascii: "+"),
                let value = UInt16(
                    String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16)
            else { throw fail("expected four hexadecimal digits") }
            position += 4
            return value
        }
    }
}
