import OrderedCollections

/// A pull parser for JSON (RFC 8259) over bytes.
///
/// Large arrays and objects, such as a tokenizer's vocabulary, are read element by element without
/// building a tree. Nesting is bounded, so hostile input cannot exhaust the stack.
struct JSONScanner: Sendable {
    static let maximumDepth = 256

    let bytes: [UInt8]
    private(set) var index: Int
    private var depth = 0

    init(_ bytes: [UInt8], at index: Int = 0) {
        self.bytes = bytes
        self.index = index
    }

    func failure(_ reason: String) -> JSONError {
        JSONError(offset: index, reason: reason)
    }

    /// The next byte that is not white space, or 0 at the end.
    mutating func peek() -> UInt8 {
        while index < bytes.count {
            let byte = bytes[index]
            if byte != 0x20 && byte != 0x0A && byte != 0x0D && byte != 0x09 { return byte }
            index += 1
        }
        return 0
    }

    mutating func expect(_ byte: UInt8) throws(JSONError) {
        guard peek() == byte, index < bytes.count else {
            throw failure("expected '\(Character(Unicode.Scalar(byte)))'")
        }
        index += 1
    }

    mutating func expectEnd() throws(JSONError) {
        guard peek() == 0, index == bytes.count else { throw failure("text after the value") }
    }

    /// Calls `body` with each key; `body` must consume the value.
    mutating func readObject(
        _ body: (inout JSONScanner, [UInt8]) throws(JSONError) -> Void
    ) throws(JSONError) {
        try expect(UInt8(ascii: "{"))
        try enter()
        defer { depth -= 1 }
        if peek() == UInt8(ascii: "}") {
            index += 1
            return
        }
        var key: [UInt8] = []
        while true {
            key.removeAll(keepingCapacity: true)
            try readString(into: &key)
            try expect(UInt8(ascii: ":"))
            try body(&self, key)
            if peek() == UInt8(ascii: ",") {
                index += 1
                continue
            }
            try expect(UInt8(ascii: "}"))
            return
        }
    }

    /// Calls `body` before each element; `body` must consume it.
    mutating func readArray(
        _ body: (inout JSONScanner) throws(JSONError) -> Void
    ) throws(JSONError) {
        try expect(UInt8(ascii: "["))
        try enter()
        defer { depth -= 1 }
        if peek() == UInt8(ascii: "]") {
            index += 1
            return
        }
        while true {
            try body(&self)
            if peek() == UInt8(ascii: ",") {
                index += 1
                continue
            }
            try expect(UInt8(ascii: "]"))
            return
        }
    }

    private mutating func enter() throws(JSONError) {
        depth += 1
        if depth > Self.maximumDepth {
            depth -= 1
            throw failure("nested deeper than \(Self.maximumDepth) levels")
        }
    }

    /// Moves past one value of any kind.
    mutating func skipValue() throws(JSONError) {
        switch peek() {
        case UInt8(ascii: "{"):
            try readObject { (scanner, _) throws(JSONError) in try scanner.skipValue() }
        case UInt8(ascii: "["):
            try readArray { (scanner) throws(JSONError) in try scanner.skipValue() }
        case UInt8(ascii: "\""):
            try skipString()
        default:
            _ = try readScalar()
        }
    }

    mutating func readValue() throws(JSONError) -> JSONValue {
        switch peek() {
        case UInt8(ascii: "{"):
            var members: OrderedDictionary<String, JSONValue> = [:]
            try readObject { (scanner, key) throws(JSONError) in
                members[String(decoding: key, as: UTF8.self)] = try scanner.readValue()
            }
            return .object(members)
        case UInt8(ascii: "["):
            var elements: [JSONValue] = []
            try readArray { (scanner) throws(JSONError) in
                elements.append(try scanner.readValue())
            }
            return .array(elements)
        case UInt8(ascii: "\""):
            var text: [UInt8] = []
            try readString(into: &text)
            return .string(String(decoding: text, as: UTF8.self))
        default:
            return try readScalar()
        }
    }

    private mutating func readScalar() throws(JSONError) -> JSONValue {
        let first = peek()
        if first == UInt8(ascii: "-") || (first >= 0x30 && first <= 0x39) {
            return try readNumber()
        }
        for (word, value) in [
            ("true", JSONValue.bool(true)), ("false", .bool(false)), ("null", .null),
        ] {
            let end = index + word.utf8.count
            if end <= bytes.count, bytes[index..<end].elementsEqual(word.utf8) {
                index = end
                return value
            }
        }
        throw failure(index == bytes.count ? "the text ends early" : "expected a value")
    }

    mutating func readInteger() throws(JSONError) -> Int {
        guard case .integer(let value) = try readScalar() else {
            throw failure("expected an integer")
        }
        return value
    }

    private mutating func readNumber() throws(JSONError) -> JSONValue {
        let start = index
        var isInteger = true
        if bytes[index] == UInt8(ascii: "-") { index += 1 }
        let digits = index
        try skipDigits()
        if bytes[digits] == 0x30, index > digits + 1 { throw failure("a number starts with 0") }
        if index < bytes.count, bytes[index] == UInt8(ascii: ".") {
            isInteger = false
            index += 1
            try skipDigits()
        }
        if index < bytes.count, bytes[index] | 0x20 == UInt8(ascii: "e") {
            isInteger = false
            index += 1
            if index < bytes.count, bytes[index] == 0x2B || bytes[index] == 0x2D { index += 1 }
            try skipDigits()
        }
        let text = String(decoding: bytes[start..<index], as: UTF8.self)
        if isInteger, let value = Int(text) { return .integer(value) }
        guard let value = Double(text) else { throw failure("not a number: \(text)") }
        return .double(value)
    }

    private mutating func skipDigits() throws(JSONError) {
        let start = index
        while index < bytes.count, bytes[index] >= 0x30, bytes[index] <= 0x39 { index += 1 }
        if index == start { throw failure("expected a digit") }
    }

    private mutating func skipString() throws(JSONError) {
        try expect(UInt8(ascii: "\""))
        while index < bytes.count {
            let byte = bytes[index]
            index += byte == UInt8(ascii: "\\") ? 2 : 1
            if byte == UInt8(ascii: "\"") { return }
        }
        index = bytes.count
        throw failure("a string does not end")
    }

    /// Appends the string's UTF-8 bytes to `output`. A lone surrogate becomes U+FFFD.
    mutating func readString(into output: inout [UInt8]) throws(JSONError) {
        try expect(UInt8(ascii: "\""))
        var plain = index
        while index < bytes.count {
            let byte = bytes[index]
            if byte == UInt8(ascii: "\"") {
                output.append(contentsOf: bytes[plain..<index])
                index += 1
                return
            }
            if byte == UInt8(ascii: "\\") {
                output.append(contentsOf: bytes[plain..<index])
                index += 1
                try readEscape(into: &output)
                plain = index
            } else if byte < 0x20 {
                throw failure("a control character in a string")
            } else {
                index += 1
            }
        }
        throw failure("a string does not end")
    }

    private mutating func readEscape(into output: inout [UInt8]) throws(JSONError) {
        guard index < bytes.count else { throw failure("a string does not end") }
        let kind = bytes[index]
        index += 1
        switch kind {
        case UInt8(ascii: "n"): output.append(0x0A)
        case UInt8(ascii: "t"): output.append(0x09)
        case UInt8(ascii: "r"): output.append(0x0D)
        case UInt8(ascii: "b"): output.append(0x08)
        case UInt8(ascii: "f"): output.append(0x0C)
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): output.append(kind)
        case UInt8(ascii: "u"): try readUnicodeEscape(into: &output)
        default: throw failure("unknown escape in a string")
        }
    }

    private mutating func readUnicodeEscape(into output: inout [UInt8]) throws(JSONError) {
        var code = try readHex()
        if code >= 0xD800, code < 0xDC00, index + 1 < bytes.count, bytes[index] == 0x5C,
            bytes[index + 1] == UInt8(ascii: "u")
        {
            let resume = index
            index += 2
            let low = try readHex()
            if low >= 0xDC00, low < 0xE000 {
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            } else {
                index = resume
            }
        }
        UTF8Bytes.append(Unicode.Scalar(code) ?? "\u{FFFD}", to: &output)
    }

    private mutating func readHex() throws(JSONError) -> UInt32 {
        guard index + 4 <= bytes.count else { throw failure("a string does not end") }
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(bytes[index])).hexDigitValue else {
                throw failure("expected four hexadecimal digits")
            }
            code = code << 4 | UInt32(digit)
            index += 1
        }
        return code
    }
}

extension JSONValue {
    /// Parses a whole JSON text.
    /// - Throws: `JSONError` naming the byte.
    public init(parsing bytes: some Sequence<UInt8>) throws(JSONError) {
        var scanner = JSONScanner(Array(bytes))
        self = try scanner.readValue()
        try scanner.expectEnd()
    }
}
