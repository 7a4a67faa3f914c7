import Foundation

/// One spelling for each JSON value: no spaces, keys sorted by their UTF-8 bytes, whole numbers
/// without fraction or exponent, other numbers in the shortest form that reads back to the same
/// double, strings escaped only where JSON demands it.
package enum CanonicalJSON {
    /// - Throws: `invalid` naming the file if the text is not JSON.
    package static func encode(_ json: [UInt8], file: String) throws(RegistryError) -> [UInt8] {
        do {
            var text = ""
            try JSONDecoder().decode(JSONValue.self, from: Data(json)).append(to: &text)
            return Array(text.utf8)
        } catch DecodingError.dataCorrupted(let context) {
            let reason = context.underlyingError.map { " (\($0))" } ?? ""
            throw RegistryError(
                .invalid, "\(file) is not JSON: \(context.debugDescription)\(reason)")
        } catch {
            throw RegistryError(.invalid, "\(file) is not JSON: \(error)")
        }
    }
}

private enum JSONValue: Decodable {
    case null
    case bool(Bool)
    case whole(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let string = try? container.decode(String.self) {
            self = .string(string)
        } else if let whole = try? container.decode(Int64.self) {
            self = .whole(whole)
        } else if let number = try? container.decode(Double.self) {
            self = .number(number)
        } else if let bool = try? container.decode(Bool.self) {
            self = .bool(bool)
        } else if let array = try? container.decode([JSONValue].self) {
            self = .array(array)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    func append(to text: inout String) {
        switch self {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .whole(let value): text += "\(value)"
        case .number(let value): text += "\(value)"
        case .string(let value): Self.append(value, to: &text)
        case .array(let elements):
            text += "["
            for (index, element) in elements.enumerated() {
                if index > 0 { text += "," }
                element.append(to: &text)
            }
            text += "]"
        case .object(let members):
            text += "{"
            let sorted = members.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
            for (index, member) in sorted.enumerated() {
                if index > 0 { text += "," }
                Self.append(member.key, to: &text)
                text += ":"
                member.value.append(to: &text)
            }
            text += "}"
        }
    }

    private static func append(_ string: String, to text: inout String) {
        text += "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }
}
