import Foundation
import OrderedCollections

/// How Python writes values as text.
enum PythonText {
    static func string(_ value: TemplateValue, depth: Int = 0) throws(TemplateError) -> String {
        if case .string(let string) = value.plain { return string }
        if case .undefined = value { return "" }
        return try representation(value, depth: depth)
    }

    static func representation(
        _ value: TemplateValue, depth: Int = 0
    ) throws(TemplateError) -> String {
        if depth > 100 { throw .limit("a value nests too deeply to be printed") }
        func list(_ elements: [TemplateValue]) throws(TemplateError) -> String {
            var parts: [String] = []
            for element in elements {
                parts.append(try representation(element, depth: depth + 1))
            }
            return parts.joined(separator: ", ")
        }
        switch value {
        case .undefined: return "Undefined"
        case .none: return "None"
        case .bool(let bool): return bool ? "True" : "False"
        case .int(let int): return String(int)
        case .double(let double): return self.double(double)
        case .string(let string): return quoted(string)
        case .markup(let string): return "Markup(\(quoted(string)))"
        case .list(let elements): return "[" + (try list(elements)) + "]"
        case .tuple(let elements):
            return "(" + (try list(elements)) + (elements.count == 1 ? ",)" : ")")
        case .dict(let dict):
            var parts: [String] = []
            for (key, member) in dict {
                parts.append(
                    try representation(key.value, depth: depth + 1) + ": "
                        + representation(member, depth: depth + 1))
            }
            return "{" + parts.joined(separator: ", ") + "}"
        case .lazy(.range, let elements):
            let low = elements.first?.integer ?? 0
            return "range(\(low), \((elements.last?.integer ?? low - 1) + 1))"
        case .lazy(.generator, _): return "<generator object>"
        case .lazy(_, let elements): return "\(value.typeName)([\(try list(elements))])"
        case .namespace(let space):
            return "<Namespace \(try representation(.dict(space.attributes)))>"
        case .macro(let macro): return "<Macro \(quoted(macro.macro.name))>"
        case .loop(let loop): return "<LoopContext \(loop.index + 1)/\(loop.items.count)>"
        case .cycler, .function, .method: return "<\(value.typeName)>"
        }
    }

    /// The shortest digits that give the number back, as Python lays them out.
    static func double(_ value: Double) -> String {
        if value.isNaN { return "nan" }
        if value.isInfinite { return value < 0 ? "-inf" : "inf" }
        var text = value.magnitude.description
        var exponent = 0
        if let mark = text.firstIndex(where: { $0 == "e" || $0 == "E" }) {
            exponent = Int(text[text.index(after: mark)...]) ?? 0
            text = String(text[..<mark])
        }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        var digits = Array(parts[0].utf8) + (parts.count > 1 ? Array(parts[1].utf8) : [])
        var point = parts[0].utf8.count + exponent
        while digits.count > 1, digits[0] == 0x30 {
            digits.removeFirst()
            point -= 1
        }
        while digits.count > 1, digits.last == 0x30 { digits.removeLast() }
        let sign = value.sign == .minus ? "-" : ""
        if digits == [0x30] { return sign + "0.0" }
        func slice(_ range: Range<Int>) -> String { String(decoding: digits[range], as: UTF8.self) }
        if point > 16 || point < -3 {
            let power = abs(point - 1)
            let tail = digits.count > 1 ? "." + slice(1..<digits.count) : ""
            return sign + slice(0..<1) + tail + (point - 1 < 0 ? "e-" : "e+")
                + (power < 10 ? "0" : "") + String(power)
        }
        if point <= 0 {
            return sign + "0." + String(repeating: "0", count: -point) + slice(0..<digits.count)
        }
        if point >= digits.count {
            return sign + slice(0..<digits.count)
                + String(repeating: "0", count: point - digits.count) + ".0"
        }
        return sign + slice(0..<point) + "." + slice(point..<digits.count)
    }

    static func quoted(_ text: String) -> String {
        let scalars = text.unicodeScalars
        let quote: Unicode.Scalar = scalars.contains("'") && !scalars.contains("\"") ? "\"" : "'"
        var output = String.UnicodeScalarView()
        output.append(quote)
        for scalar in scalars {
            switch scalar {
            case "\\": output.append(contentsOf: "\\\\".unicodeScalars)
            case quote: output.append(contentsOf: "\\\(quote)".unicodeScalars)
            case "\n": output.append(contentsOf: "\\n".unicodeScalars)
            case "\r": output.append(contentsOf: "\\r".unicodeScalars)
            case "\t": output.append(contentsOf: "\\t".unicodeScalars)
            case _ where isPrintable(scalar): output.append(scalar)
            default: output.append(contentsOf: escape(scalar).unicodeScalars)
            }
        }
        output.append(quote)
        return String(output)
    }

    private static func escape(_ scalar: Unicode.Scalar) -> String {
        let hex = String(scalar.value, radix: 16)
        func padded(_ width: Int) -> String {
            String(repeating: "0", count: max(0, width - hex.count)) + hex
        }
        if scalar.value < 0x100 { return "\\x" + padded(2) }
        return scalar.value < 0x10000 ? "\\u" + padded(4) : "\\U" + padded(8)
    }

    static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        if scalar == " " { return true }
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator,
            .paragraphSeparator, .spaceSeparator:
            return false
        default: return true
        }
    }

    // MARK: JSON

    struct JSONLayout {
        var indent: String?
        var itemSeparator = ", "
        var keySeparator = ": "
        var sortsKeys = false
        var isASCII = false
    }

    /// What Python's `json.dumps` writes.
    static func json(
        _ value: TemplateValue, _ layout: JSONLayout, depth: Int = 0
    ) throws(TemplateError) -> String {
        if depth > 100 { throw .limit("a value nests too deeply for JSON") }
        func wrap(_ open: String, _ parts: [String], _ close: String) -> String {
            if parts.isEmpty { return open + close }
            guard let indent = layout.indent else {
                return open + parts.joined(separator: layout.itemSeparator) + close
            }
            let inner = "\n" + String(repeating: indent, count: depth + 1)
            let outer = "\n" + String(repeating: indent, count: depth)
            return open + inner + parts.joined(separator: layout.itemSeparator + inner) + outer
                + close
        }
        switch value {
        case .none: return "null"
        case .bool(let bool): return bool ? "true" : "false"
        case .int(let int): return String(int)
        case .double(let double): return jsonNumber(double)
        case .string(let string), .markup(let string):
            return jsonString(string, isASCII: layout.isASCII)
        case .list(let elements), .tuple(let elements):
            var parts: [String] = []
            for element in elements { parts.append(try json(element, layout, depth: depth + 1)) }
            return wrap("[", parts, "]")
        case .dict(let dict):
            var entries: [(key: String, value: TemplateValue)] = []
            for (key, member) in dict { entries.append((try jsonKey(key), member)) }
            if layout.sortsKeys {
                entries.sort { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
            }
            var parts: [String] = []
            for entry in entries {
                parts.append(
                    jsonString(entry.key, isASCII: layout.isASCII) + layout.keySeparator
                        + (try json(entry.value, layout, depth: depth + 1)))
            }
            return wrap("{", parts, "}")
        default:
            throw .runtime("Object of type \(value.typeName) is not JSON serializable")
        }
    }

    private static func jsonNumber(_ double: Double) -> String {
        if double.isNaN { return "NaN" }
        if double.isInfinite { return double < 0 ? "-Infinity" : "Infinity" }
        return self.double(double)
    }

    private static func jsonKey(_ key: TemplateKey) throws(TemplateError) -> String {
        switch key {
        case .string(let string): return string
        case .none: return "null"
        case .bool(let bool): return bool ? "true" : "false"
        case .int(let int): return String(int)
        case .double(let double): return jsonNumber(double)
        case .tuple:
            throw .runtime("keys must be str, int, float, bool or None, not tuple")
        }
    }

    static func jsonString(_ text: String, isASCII: Bool) -> String {
        var output: [UInt8] = [0x22]
        func hex(_ code: UInt32) {
            let digits = String(code, radix: 16)
            output += ("\\u" + String(repeating: "0", count: 4 - digits.count) + digits).utf8
        }
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x22: output += "\\\"".utf8
            case 0x5C: output += "\\\\".utf8
            case 0x0A: output += "\\n".utf8
            case 0x0D: output += "\\r".utf8
            case 0x09: output += "\\t".utf8
            case 0x08: output += "\\b".utf8
            case 0x0C: output += "\\f".utf8
            case 0..<0x20: hex(scalar.value)
            case 0x7F... where isASCII && scalar.value > 0x7F:
                for unit in UTF16.encode(scalar) ?? .init() { hex(UInt32(unit)) }
            default: UTF8Bytes.append(scalar, to: &output)
            }
        }
        output.append(0x22)
        return String(decoding: output, as: UTF8.self)
    }
}
