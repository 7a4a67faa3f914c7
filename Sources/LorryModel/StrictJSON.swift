/// A JSON value that keeps what Foundation's parser loses: the order of an object's keys and the
/// difference between integers and other numbers.
///
/// Checkpoints, adapter files and requests are untrusted: nesting is bounded, duplicate keys and
/// trailing bytes are refused, what is wrong is named with its byte (RFC 8259), and a value takes at
/// most some twenty times the bytes of its text.
public enum StrictJSON: Sendable, Equatable {
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
        /// Positions of members by their keys, where there are too many to look through.
        private var index: [String: Int]?

        private static let lookedThroughCount = 16

        public subscript(key: String) -> StrictJSON? {
            position(of: key).map { members[$0].value }
        }

        private func position(of key: String) -> Int? {
            if let index { return index[key] }
            return members.firstIndex { $0.key == key }
        }

        /// Returns false, changing nothing, where the key is there already.
        mutating func insert(_ key: String, _ value: StrictJSON) -> Bool {
            guard position(of: key) == nil else { return false }
            index?[key] = members.count
            members.append((key, value))
            if index == nil, members.count > Self.lookedThroughCount {
                index = Dictionary(
                    uniqueKeysWithValues: members.enumerated().map { ($1.key, $0) })
            }
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

    /// - Parameters:
    ///   - maximumDepth: how deep arrays and objects may nest.
    ///   - takesLoneSurrogates: whether an escaped half of a surrogate pair, which careless clients
    ///     cut texts to, becomes U+FFFD; else it is refused.
    public init(
        parsing bytes: some Collection<UInt8>, maximumDepth: Int = 64,
        takesLoneSurrogates: Bool = true
    ) throws(ParseError) {
        var reader = JSONReader(
            bytes, maximumDepth: maximumDepth, takesLoneSurrogates: takesLoneSurrogates)
        self = try reader.readValue()
        try reader.expectEnd()
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

extension JSONReader {
    /// The value that begins here, as a tree.
    package mutating func readValue() throws(StrictJSON.ParseError) -> StrictJSON {
        switch peek() {
        case UInt8(ascii: "{"):
            var place = try enter()
            var object = StrictJSON.Object()
            while let key = try nextKey(&place) {
                let value = try readValue()
                guard object.insert(key, value) else { throw fail("duplicate key '\(shown(key))'") }
            }
            return .object(object)
        case UInt8(ascii: "["):
            var place = try enter()
            var values: [StrictJSON] = []
            while try nextElement(&place) { values.append(try readValue()) }
            return .array(values)
        case UInt8(ascii: "\""): return .string(try readString())
        case UInt8(ascii: "t"): return try readWord("true", .bool(true))
        case UInt8(ascii: "f"): return try readWord("false", .bool(false))
        case UInt8(ascii: "n"): return try readWord("null", .null)
        // Python's json writes these three; peft configs may contain Infinity.
        case UInt8(ascii: "N"): return try readWord("NaN", .number(.nan))
        case UInt8(ascii: "I"): return try readWord("Infinity", .number(.infinity))
        case nil: throw fail("unexpected end")
        default: return try readNumber()
        }
    }

    private mutating func readWord(
        _ word: StaticString, _ value: StrictJSON
    ) throws(StrictJSON.ParseError) -> StrictJSON {
        try read(word)
        return value
    }
}
