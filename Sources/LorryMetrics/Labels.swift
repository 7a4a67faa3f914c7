/// The label set of one time series, kept sorted by label name.
///
/// Names are brought into the form Prometheus accepts (`[a-zA-Z_][a-zA-Z0-9_]*`, other characters
/// become `_`); of two labels with one name the later wins. Values may be any text.
public struct Labels: Hashable, Sendable, ExpressibleByDictionaryLiteral {
    /// Name and value, ascending by name, each name once.
    package let pairs: [Pair]

    package struct Pair: Hashable, Sendable {
        package let name: String
        package let value: String
    }

    public init(dictionaryLiteral elements: (String, String)...) {
        self.init(elements)
    }

    public init(_ elements: [(String, String)]) {
        var values: [String: String] = [:]
        for (name, value) in elements {
            values[MetricName.sanitizedLabel(name)] = value
        }
        pairs = values.map { Pair(name: $0.key, value: $0.value) }.sorted { $0.name < $1.name }
    }

    private init(sortedPairs: [Pair]) {
        pairs = sortedPairs
    }

    var isEmpty: Bool { pairs.isEmpty }

    /// The same names with each value replaced by `_other`, except for the names in `kept`.
    func folded(keeping kept: Set<String>) -> Labels {
        Labels(
            sortedPairs: pairs.map {
                kept.contains($0.name) ? $0 : Pair(name: $0.name, value: "_other")
            })
    }

    /// `le` is the histogram's own label; a caller's label of that name moves out of its way.
    func renamingBucketLabel() -> Labels {
        guard pairs.contains(where: { $0.name == "le" }) else { return self }
        return Labels(pairs.map { ($0.name == "le" ? "exported_le" : $0.name, $0.value) })
    }
}

extension Labels: Comparable {
    public static func < (left: Labels, right: Labels) -> Bool {
        left.pairs.lexicographicallyPrecedes(right.pairs) {
            ($0.name, $0.value) < ($1.name, $1.value)
        }
    }
}

/// Brings names into the form of Prometheus' data model.
enum MetricName {
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`; colons stay, since vLLM's names have them.
    static func sanitized(_ name: String) -> String {
        sanitized(name, allowingColons: true)
    }

    static func sanitizedLabel(_ name: String) -> String {
        sanitized(name, allowingColons: false)
    }

    /// A family's identity: OpenMetrics knows counter `x_total` as family `x`, so that a gauge `x`
    /// and a counter `x_total` cannot both exist.
    static func familyKey(_ name: String) -> String {
        name.hasSuffix("_total") && name.utf8.count > 6 ? String(name.dropLast(6)) : name
    }

    private static func sanitized(_ name: String, allowingColons: Bool) -> String {
        func isAllowed(_ byte: UInt8) -> Bool {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
                return true
            case UInt8(ascii: ":"):
                return allowingColons
            default:
                return false
            }
        }
        let startsWithDigit = name.utf8.first.map { (0x30...0x39).contains($0) } ?? true
        if !startsWithDigit, name.utf8.allSatisfy(isAllowed) { return name }
        let body = name.unicodeScalars.map { scalar in
            scalar.isASCII && isAllowed(UInt8(scalar.value)) ? Character(scalar) : "_"
        }
        return (startsWithDigit ? "_" : "") + String(body)
    }
}
