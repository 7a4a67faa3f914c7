import LorryModel

/// One spelling for each JSON value: no spaces, keys sorted by their UTF-8 bytes, whole numbers
/// without fraction or exponent, other numbers in the shortest form that reads back to the same
/// double, strings escaped only where JSON demands it.
package enum CanonicalJSON {
    /// - Throws: `invalid` naming the file if the text is not JSON, or has a number that JSON has no
    ///   spelling for.
    package static func encode(_ json: [UInt8], file: String) throws(RegistryError) -> [UInt8] {
        let value: StrictJSON
        do {
            value = try StrictJSON(parsing: json, takesLoneSurrogates: false)
        } catch {
            throw RegistryError(.invalid, "\(file): \(error)")
        }
        var text = ""
        guard append(value, to: &text) else {
            throw RegistryError(.invalid, "\(file): has a number that is not finite")
        }
        return Array(text.utf8)
    }

    /// Returns false for numbers that are not finite.
    private static func append(_ value: StrictJSON, to text: inout String) -> Bool {
        switch value {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .integer(let value): text += "\(value)"
        case .number(let value):
            guard value.isFinite else { return false }
            if let whole = Int64(exactly: value) { text += "\(whole)" } else { text += "\(value)" }
        case .string(let value): append(value, to: &text)
        case .array(let elements):
            text += "["
            for (index, element) in elements.enumerated() {
                if index > 0 { text += "," }
                guard append(element, to: &text) else { return false }
            }
            text += "]"
        case .object(let object):
            text += "{"
            let sorted = object.members.sorted {
                $0.key.utf8.lexicographicallyPrecedes($1.key.utf8)
            }
            for (index, member) in sorted.enumerated() {
                if index > 0 { text += "," }
                append(member.key, to: &text)
                text += ":"
                guard append(member.value, to: &text) else { return false }
            }
            text += "}"
        }
        return true
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
