import Foundation
import OrderedCollections

/// Methods of Python's `str`, on scalars.
struct PythonString {
    typealias Arguments = TemplateInterpreter.Arguments
    typealias Scalars = ArraySlice<Unicode.Scalar>

    private let text: String
    private let interpreter: TemplateInterpreter

    init(_ text: String, _ interpreter: TemplateInterpreter) {
        self.text = text
        self.interpreter = interpreter
    }

    static func string(_ scalars: some Sequence<Unicode.Scalar>) -> String {
        String(String.UnicodeScalarView(scalars))
    }

    func call(_ name: String, _ arguments: Arguments) throws(TemplateError) -> TemplateValue {
        try interpreter.charge(text.utf8.count)
        switch name {
        case "lower": return .string(text.lowercased())
        case "upper": return .string(text.uppercased())
        case "casefold": return .string(text.lowercased())
        case "capitalize": return .string(Self.capitalized(text))
        case "title": return .string(Self.titled(text))
        case "swapcase": return .string(Self.swapped(text))
        case "strip", "lstrip", "rstrip":
            let characters = try optionalText(arguments, 0, "chars")
            return .string(
                Self.strip(
                    text, characters, left: name != "rstrip", right: name != "lstrip"))
        case "split", "rsplit": return try split(name == "rsplit", arguments)
        case "splitlines":
            let keeps = (arguments.positional.first ?? arguments.named["keepends"])?.isTrue ?? false
            return .list(Self.lines(text, keepsEnds: keeps).map { .string($0) })
        case "partition", "rpartition":
            return try partition(name == "rpartition", try requiredText(arguments, 0))
        case "startswith", "endswith": return try affix(name, arguments)
        case "removeprefix":
            let prefix = try requiredText(arguments, 0)
            return .string(
                text.utf8.starts(with: prefix.utf8)
                    ? String(text.utf8.dropFirst(prefix.utf8.count)) ?? text : text)
        case "removesuffix":
            let suffix = try requiredText(arguments, 0)
            return .string(
                Self.hasSuffix(text, suffix)
                    ? String(text.utf8.dropLast(suffix.utf8.count)) ?? text : text)
        case "replace": return try replace(arguments)
        case "join": return try join(arguments)
        case "format": return .string(try PythonFormat(interpreter).format(text, arguments))
        case "find", "rfind", "index", "rindex", "count": return try search(name, arguments)
        case "center", "ljust", "rjust", "zfill": return try pad(name, arguments)
        case "expandtabs": return .string(expandTabs(try integer(arguments, 0) ?? 8))
        default: return .bool(try check(name))
        }
    }

    // MARK: Arguments

    private func optionalText(
        _ arguments: Arguments, _ index: Int, _ name: String
    ) throws(TemplateError) -> String? {
        let value =
            arguments.positional.count > index
            ? arguments.positional[index] : arguments.named[name] ?? .none
        switch value {
        case .none: return nil
        case .string(let text): return text
        default: throw .runtime("a string method got '\(value.typeName)' for text")
        }
    }

    private func requiredText(
        _ arguments: Arguments, _ index: Int
    ) throws(TemplateError) -> String {
        guard let text = try optionalText(arguments, index, "") else {
            throw .runtime("a string method lacks an argument")
        }
        return text
    }

    private func integer(_ arguments: Arguments, _ index: Int) throws(TemplateError) -> Int? {
        guard arguments.positional.count > index else { return nil }
        if case .none = arguments.positional[index] { return nil }
        guard let integer = arguments.positional[index].integer else {
            throw .runtime(
                "a string method got '\(arguments.positional[index].typeName)' for a number")
        }
        return integer
    }

    // MARK: Case

    static func capitalized(_ text: String) -> String {
        guard let first = text.unicodeScalars.first else { return text }
        return first.properties.titlecaseMapping
            + string(text.unicodeScalars.dropFirst()).lowercased()
    }

    static func titled(_ text: String) -> String {
        var output = ""
        var isInside = false
        for scalar in text.unicodeScalars {
            output +=
                isInside ? scalar.properties.lowercaseMapping : scalar.properties.titlecaseMapping
            isInside = scalar.properties.isCased
        }
        return output
    }

    private static func swapped(_ text: String) -> String {
        text.unicodeScalars.map {
            $0.properties.isUppercase
                ? $0.properties.lowercaseMapping : $0.properties.uppercaseMapping
        }.joined()
    }

    // MARK: Cutting

    static func isSpace(_ scalar: Unicode.Scalar) -> Bool {
        scalar.properties.isWhitespace || (0x1C...0x1F).contains(scalar.value)
    }

    static func strip(_ text: String, _ characters: String?, left: Bool, right: Bool) -> String {
        let set = characters.map { Set($0.unicodeScalars) }
        func isStripped(_ scalar: Unicode.Scalar) -> Bool {
            set?.contains(scalar) ?? isSpace(scalar)
        }
        var scalars = text.unicodeScalars[...]
        while left, let first = scalars.first, isStripped(first) { scalars.removeFirst() }
        while right, let last = scalars.last, isStripped(last) { scalars.removeLast() }
        return String(scalars)
    }

    /// Cuts at Python's line ends.
    static func lines(_ text: String, keepsEnds: Bool) -> [String] {
        var lines: [String] = []
        var line = String.UnicodeScalarView()
        var scalars = text.unicodeScalars[...]
        while let scalar = scalars.popFirst() {
            switch scalar.value {
            case 0x0A...0x0D, 0x1C...0x1E, 0x85, 0x2028, 0x2029:
                if keepsEnds { line.append(scalar) }
                if scalar == "\r", scalars.first == "\n" {
                    scalars.removeFirst()
                    if keepsEnds { line.append("\n") }
                }
                lines.append(String(line))
                line = String.UnicodeScalarView()
            default: line.append(scalar)
            }
        }
        if !line.isEmpty { lines.append(String(line)) }
        return lines
    }

    private func split(
        _ fromRight: Bool, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        let separator = try optionalText(arguments, 0, "sep")
        let limit = try integer(arguments, 1) ?? arguments.named["maxsplit"]?.integer ?? -1
        if separator == "" { throw .runtime("empty separator") }
        var scalars = Array(text.unicodeScalars)
        var mark = separator.map { Array($0.unicodeScalars) }
        if fromRight {
            scalars.reverse()
            mark?.reverse()
        }
        var parts =
            mark.map { Self.split(scalars, at: $0, limit: limit) }
            ?? Self.splitWords(scalars, limit: limit)
        if fromRight { parts = parts.reversed().map { $0.reversed() } }
        try interpreter.charge(parts.count * 16)
        return .list(parts.map { .string(Self.string($0)) })
    }

    private static func split(
        _ scalars: [Unicode.Scalar], at mark: [Unicode.Scalar], limit: Int
    ) -> [[Unicode.Scalar]] {
        var parts: [[Unicode.Scalar]] = []
        var start = 0
        var index = 0
        while index + mark.count <= scalars.count, limit < 0 || parts.count < limit {
            if scalars[index..<(index + mark.count)].elementsEqual(mark) {
                parts.append(Array(scalars[start..<index]))
                index += mark.count
                start = index
            } else {
                index += 1
            }
        }
        parts.append(Array(scalars[start...]))
        return parts
    }

    private static func splitWords(
        _ scalars: [Unicode.Scalar], limit: Int
    ) -> [[Unicode.Scalar]] {
        var parts: [[Unicode.Scalar]] = []
        var index = 0
        while true {
            while index < scalars.count, isSpace(scalars[index]) { index += 1 }
            if index == scalars.count { return parts }
            if limit >= 0, parts.count >= limit {
                var end = scalars.count
                while end > index, isSpace(scalars[end - 1]) { end -= 1 }
                parts.append(Array(scalars[index..<end]))
                return parts
            }
            let start = index
            while index < scalars.count, !isSpace(scalars[index]) { index += 1 }
            parts.append(Array(scalars[start..<index]))
        }
    }

    private func partition(
        _ fromRight: Bool, _ separator: String
    ) throws(TemplateError) -> TemplateValue {
        if separator.isEmpty { throw .runtime("empty separator") }
        var found: Range<String.Index>?
        var start = text.startIndex
        while let range = text.utf8Find(separator, from: start) {
            found = range
            if !fromRight { break }
            start = text.utf8.index(after: range.lowerBound)
        }
        guard let found else {
            let empty = TemplateValue.string("")
            return .tuple(
                fromRight ? [empty, empty, .string(text)] : [.string(text), empty, empty])
        }
        return .tuple([
            .string(String(text[..<found.lowerBound])), .string(separator),
            .string(String(text[found.upperBound...])),
        ])
    }

    // MARK: Searching

    private static func hasSuffix(_ text: String, _ suffix: String) -> Bool {
        text.utf8.count >= suffix.utf8.count
            && text.utf8.suffix(suffix.utf8.count).elementsEqual(suffix.utf8)
    }

    private func affix(_ name: String, _ arguments: Arguments) throws(TemplateError)
        -> TemplateValue
    {
        let start = try integer(arguments, 1)
        let stop = try integer(arguments, 2)
        let part = try window(start, stop)
        guard let first = arguments.positional.first else {
            throw .runtime("\(name)() takes at least 1 argument (0 given)")
        }
        var affixes = [first]
        if case .tuple(let several) = first { affixes = several }
        for affix in affixes {
            guard case .string(let affix) = affix else {
                throw .runtime(
                    "\(name) first arg must be str or a tuple of str, not \(first.typeName)")
            }
            let isMatch =
                name == "startswith"
                ? part.utf8.starts(with: affix.utf8) : Self.hasSuffix(part, affix)
            if isMatch { return .bool(true) }
        }
        return .bool(false)
    }

    /// The part of the text that optional bounds leave.
    private func window(_ start: Int?, _ stop: Int?) throws(TemplateError) -> String {
        if start == nil, stop == nil { return text }
        let slice = try TemplateOperators(interpreter).slice(.string(text), start, stop, nil)
        return try PythonText.string(slice)
    }

    private func replace(_ arguments: Arguments) throws(TemplateError) -> TemplateValue {
        let old = try requiredText(arguments, 0)
        let new = try requiredText(arguments, 1)
        let limit = try integer(arguments, 2) ?? arguments.named["count"]?.integer ?? -1
        return .string(try Self.replace(text, old, new, limit: limit, interpreter))
    }

    static func replace(
        _ text: String, _ old: String, _ new: String, limit: Int,
        _ interpreter: TemplateInterpreter
    ) throws(TemplateError) -> String {
        var output: [UInt8] = []
        var count = 0
        func isOpen() -> Bool { limit < 0 || count < limit }
        if old.isEmpty {
            for scalar in text.unicodeScalars {
                if isOpen() {
                    output += new.utf8
                    count += 1
                }
                UTF8Bytes.append(scalar, to: &output)
                try interpreter.charge(new.utf8.count)
            }
            if isOpen() { output += new.utf8 }
            return String(decoding: output, as: UTF8.self)
        }
        let bytes = Array(text.utf8)
        let pattern = Array(old.utf8)
        var index = 0
        while index < bytes.count {
            if isOpen(), bytes[index] == pattern[0], bytes.hasPrefix(pattern, at: index) {
                output += new.utf8
                index += pattern.count
                count += 1
                try interpreter.charge(new.utf8.count)
            } else {
                output.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: output, as: UTF8.self)
    }

    private func join(_ arguments: Arguments) throws(TemplateError) -> TemplateValue {
        var output = ""
        for (index, element) in (try arguments.positional.first?.elements() ?? []).enumerated() {
            guard case .string(let part) = element else {
                throw .runtime(
                    "sequence item \(index): expected str instance, \(element.typeName) found")
            }
            if index > 0 { output += text }
            output += part
            try interpreter.charge(part.utf8.count + text.utf8.count)
        }
        return .string(output)
    }

    private func search(
        _ name: String, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        let part = Array(try requiredText(arguments, 0).unicodeScalars)
        let start = try integer(arguments, 1)
        let stop = try integer(arguments, 2)
        let scalars = Array(try window(start, stop).unicodeScalars)
        let total = text.unicodeScalars.count
        let bound = start ?? 0
        let offset = min(bound < 0 ? max(0, bound + total) : bound, total)
        var places: [Int] = []
        var index = 0
        while index + part.count <= scalars.count {
            if scalars[index..<(index + part.count)].elementsEqual(part) {
                places.append(index + offset)
                index += name == "count" ? max(part.count, 1) : 1
                if name == "find" || name == "index" { break }
            } else {
                index += 1
            }
        }
        if name == "count" { return .int(places.count) }
        let found = name.hasPrefix("r") ? places.last : places.first
        if found == nil, name.hasSuffix("index") { throw .runtime("substring not found") }
        return .int(found ?? -1)
    }

    // MARK: Padding

    private func pad(_ name: String, _ arguments: Arguments) throws(TemplateError) -> TemplateValue
    {
        guard let width = try integer(arguments, 0) else {
            throw .runtime("\(name)() takes at least 1 argument")
        }
        try interpreter.charge(max(width, 0))
        let missing = max(0, width - text.unicodeScalars.count)
        if name == "zfill" {
            let hasSign = text.hasPrefix("-") || text.hasPrefix("+")
            let sign = hasSign ? String(text.prefix(1)) : ""
            return .string(
                sign + String(repeating: "0", count: missing) + text.dropFirst(sign.count))
        }
        let fill = try optionalText(arguments, 1, "fillchar") ?? " "
        return .string(Self.padded(text, missing, fill, name))
    }

    static func padded(_ text: String, _ missing: Int, _ fill: String, _ mode: String) -> String {
        func fillers(_ count: Int) -> String { String(repeating: fill, count: count) }
        switch mode {
        case "ljust": return text + fillers(missing)
        case "rjust": return fillers(missing) + text
        default:
            // CPython puts the odd one to the left when the width is odd.
            let width = text.unicodeScalars.count + missing
            let left = missing / 2 + (missing & width & 1)
            return fillers(left) + text + fillers(missing - left)
        }
    }

    private func expandTabs(_ size: Int) -> String {
        var output = ""
        var column = 0
        for scalar in text.unicodeScalars {
            if scalar == "\t" {
                let count = size > 0 ? size - column % size : 0
                output += String(repeating: " ", count: count)
                column += count
            } else {
                output.unicodeScalars.append(scalar)
                column = scalar == "\n" || scalar == "\r" ? 0 : column + 1
            }
        }
        return output
    }

    // MARK: Checks

    private func check(_ name: String) throws(TemplateError) -> Bool {
        let scalars = text.unicodeScalars
        switch name {
        case "isascii": return scalars.allSatisfy(\.isASCII)
        case "islower":
            return scalars.contains { $0.properties.isCased }
                && !scalars.contains { $0.properties.isUppercase }
        case "isupper":
            return scalars.contains { $0.properties.isCased }
                && !scalars.contains { $0.properties.isLowercase }
        case "istitle":
            return scalars.contains { $0.properties.isCased }
                && text.utf8.elementsEqual(Self.titled(text).utf8)
        default: break
        }
        if scalars.isEmpty { return false }
        return scalars.allSatisfy { scalar in
            switch name {
            case "isalpha": return Self.isLetter(scalar)
            case "isalnum": return Self.isLetter(scalar) || scalar.properties.numericType != nil
            case "isdecimal": return scalar.properties.numericType == .decimal
            case "isdigit":
                return scalar.properties.numericType == .decimal
                    || scalar.properties.numericType == .digit
            case "isnumeric": return scalar.properties.numericType != nil
            default: return Self.isSpace(scalar)
            }
        }
    }

    private static func isLetter(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter:
            true
        default: false
        }
    }
}
