import Foundation
import OrderedCollections

/// Filters that make text.
struct TextFilters {
    typealias Arguments = TemplateInterpreter.Arguments

    private static let maximumWidth = 100_000

    private let interpreter: TemplateInterpreter

    init(_ interpreter: TemplateInterpreter) {
        self.interpreter = interpreter
    }

    func apply(
        _ name: String, _ value: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        if name == "tojson" { return .string(try json(value, arguments)) }
        let text = try PythonText.string(value)
        try interpreter.charge(text.utf8.count)
        switch name {
        case "string", "safe": return .string(text)
        case "lower": return .string(text.lowercased())
        case "upper": return .string(text.uppercased())
        case "capitalize": return .string(PythonString.capitalized(text))
        case "title": return .string(titled(text))
        case "trim":
            let characters = try arguments.text(0, "chars")
            return .string(PythonString.strip(text, characters, left: true, right: true))
        case "e", "escape", "forceescape": return .string(Self.escaped(text))
        case "replace":
            guard let old = try arguments.text(0, "old"), let new = try arguments.text(1, "new")
            else { throw .runtime("replace needs the text to replace and the new text") }
            let limit = try arguments.integer(2, "count") ?? -1
            return .string(
                try PythonString.replace(text, old, new, limit: limit, interpreter))
        case "format":
            let operand: TemplateValue =
                arguments.named.isEmpty
                ? .tuple(arguments.positional)
                : .dict(.init(uniqueKeysWithValues: arguments.named.map { (.string($0), $1) }))
            return .string(try PythonFormat(interpreter).percent(text, operand))
        case "indent": return .string(try indented(value, arguments))
        case "center":
            let width = min(try arguments.integer(0, "width") ?? 80, Self.maximumWidth)
            let missing = max(0, width - text.unicodeScalars.count)
            return .string(PythonString.padded(text, missing, " ", "center"))
        case "truncate": return .string(try truncated(text, arguments))
        case "wordcount": return .int(words(text))
        case "wordwrap": return .string(try wrapped(text, arguments))
        case "striptags": return .string(withoutTags(text))
        default: return .string(urlEncoded(text))
        }
    }

    private func json(
        _ value: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> String {
        var layout = PythonText.JSONLayout()
        layout.isASCII = arguments.value(0, "ensure_ascii")?.isTrue ?? false
        switch arguments.value(1, "indent") {
        case nil, TemplateValue.none?: break
        case .string(let text)?: layout.indent = text
        case let width?:
            guard let count = width.integer, count <= 100 else {
                throw .runtime("indent must be a number or a string")
            }
            layout.indent = String(repeating: " ", count: max(0, count))
        }
        if layout.indent != nil { layout.itemSeparator = "," }
        if let separators = arguments.value(2, "separators"), separators.isTrue {
            let parts = try separators.elements()
            guard parts.count == 2 else { throw .runtime("separators must be two strings") }
            layout.itemSeparator = try PythonText.string(parts[0])
            layout.keySeparator = try PythonText.string(parts[1])
        }
        layout.sortsKeys = arguments.value(3, "sort_keys")?.isTrue ?? false
        let text = try PythonText.json(value, layout)
        try interpreter.charge(text.utf8.count)
        return text
    }

    /// Capital letters behind spaces, hyphens and opening brackets.
    private func titled(_ text: String) -> String {
        var output = ""
        var isInside = false
        for scalar in text.unicodeScalars {
            let isBreak =
                PythonString.isSpace(scalar) || "-({[<".unicodeScalars.contains(scalar)
            output +=
                isInside ? scalar.properties.lowercaseMapping : scalar.properties.uppercaseMapping
            isInside = !isBreak
        }
        return output
    }

    static func escaped(_ text: String) -> String {
        var output = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": output += "&amp;"
            case "<": output += "&lt;"
            case ">": output += "&gt;"
            case "'": output += "&#39;"
            case "\"": output += "&#34;"
            default: output.unicodeScalars.append(scalar)
            }
        }
        return output
    }

    private func indented(
        _ value: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> String {
        guard case .string(let text) = value else {
            throw .runtime("indent needs a string, not '\(value.typeName)'")
        }
        var indentation = "    "
        switch arguments.value(0, "width") {
        case .string(let prefix)?: indentation = prefix
        case let width?:
            guard let count = width.integer, count <= Self.maximumWidth else {
                throw .runtime("indent's width must be a number or a string")
            }
            indentation = String(repeating: " ", count: max(0, count))
        case nil: break
        }
        let indentsFirst = arguments.value(1, "first")?.isTrue ?? false
        let indentsBlank = arguments.value(2, "blank")?.isTrue ?? false
        let lines = PythonString.lines(text + "\n", keepsEnds: false)
        var output = ""
        for (index, line) in lines.enumerated() {
            if index > 0 { output += "\n" }
            let isIndented = index == 0 ? indentsFirst : indentsBlank || !line.isEmpty
            if isIndented { output += indentation }
            output += line
            try interpreter.charge(indentation.utf8.count + line.utf8.count)
        }
        return output
    }

    private func truncated(_ text: String, _ arguments: Arguments) throws(TemplateError) -> String {
        let length = try arguments.integer(0, "length") ?? 255
        let killsWords = arguments.value(1, "killwords")?.isTrue ?? false
        let end = try arguments.text(2, "end") ?? "..."
        let leeway = try arguments.integer(3, "leeway") ?? 5
        let scalars = Array(text.unicodeScalars)
        let room = length - end.unicodeScalars.count
        guard room >= 0, leeway >= 0 else {
            throw .runtime("expected length >= \(end.unicodeScalars.count), got \(length)")
        }
        if scalars.count <= length + leeway { return text }
        var kept = scalars[..<room]
        if !killsWords, let space = kept.lastIndex(of: " ") { kept = kept[..<space] }
        return PythonString.string(kept) + end
    }

    private func words(_ text: String) -> Int {
        var count = 0
        var isInside = false
        for scalar in text.unicodeScalars {
            let isWord = ScalarClass.isWord(scalar)
            if isWord && !isInside { count += 1 }
            isInside = isWord
        }
        return count
    }

    private func wrapped(_ text: String, _ arguments: Arguments) throws(TemplateError) -> String {
        let width = try arguments.integer(0, "width") ?? 79
        let separator = try arguments.text(2, "wrapstring") ?? "\n"
        if width < 1 { throw .runtime("wordwrap needs a positive width") }
        var output: [String] = []
        for line in PythonString.lines(text, keepsEnds: false) {
            var current: [Unicode.Scalar] = []
            for word in line.unicodeScalars.split(separator: " ") {
                var word = Array(word)
                if !current.isEmpty, current.count + 1 + word.count > width {
                    output.append(PythonString.string(current))
                    current = []
                }
                while word.count > width {
                    output.append(PythonString.string(word[..<width]))
                    word.removeFirst(width)
                }
                current += (current.isEmpty ? [] : [" "]) + word
            }
            output.append(PythonString.string(current))
        }
        return output.joined(separator: separator)
    }

    private func withoutTags(_ text: String) -> String {
        var output = ""
        var isTag = false
        for scalar in text.unicodeScalars {
            if scalar == "<" { isTag = true }
            if !isTag { output.unicodeScalars.append(scalar) }
            if scalar == ">" { isTag = false }
        }
        return output.split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }

    private func urlEncoded(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF")
        return text.utf8.map { byte in
            let scalar = Unicode.Scalar(byte)
            let isKept =
                byte < 0x80
                && (scalar.properties.isAlphabetic || scalar.properties.numericType != nil)
            return isKept || "_.-~/".utf8.contains(byte)
                ? String(Character(scalar)) : "%\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])"
        }.joined()
    }
}
