/// Translates a regular expression from Oniguruma's Ruby syntax, which tokenizer files use, to
/// PCRE2's where the two differ:
/// - `\s` and `\w` follow Unicode's definitions (PCRE2 counts U+180E as a space and no marks as word)
/// - `\h` is a hexadecimal digit, `\uHHHH` a scalar
/// - `{n,m}+` repeats the whole interval; it is not possessive
/// - `(?m)` lets the dot match newlines
/// - classes nest and intersect: `[a[bc]]`, `[\p{L}&&[^a-z]]`
struct OnigurumaPattern {
    static let maximumDepth = 64

    static let space = "\\x{9}-\\x{D}\\x{20}\\x{85}\\p{Z}"
    static let word =
        "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}"
        + "\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"

    private let scalars: [Unicode.Scalar]
    private let source: String
    private var index = 0
    private var output = ""
    /// Where the last atom starts in `output`, for a quantifier that needs it grouped.
    private var atomStart: String.Index
    private var groupStarts: [String.Index] = []

    private init(_ source: String) {
        self.source = source
        scalars = Array(source.unicodeScalars)
        atomStart = output.startIndex
    }

    static func translate(_ source: String) throws(TokenizerError) -> String {
        var translator = OnigurumaPattern(source)
        return try translator.run()
    }

    private func unsupported(_ what: String) -> TokenizerError {
        .unsupported("tokenizer.json: the pattern \(source) uses \(what), which is not supported")
    }

    private var current: Unicode.Scalar? {
        index < scalars.count ? scalars[index] : nil
    }

    private func peek(_ offset: Int) -> Unicode.Scalar? {
        index + offset < scalars.count ? scalars[index + offset] : nil
    }

    private mutating func copy(_ count: Int = 1) {
        for _ in 0..<count where index < scalars.count {
            output.unicodeScalars.append(scalars[index])
            index += 1
        }
    }

    private mutating func run() throws(TokenizerError) -> String {
        output.reserveCapacity(scalars.count * 2)
        while let scalar = current {
            switch scalar {
            case "\\":
                atomStart = output.endIndex
                output += try escape(inClass: false)
            case "[":
                atomStart = output.endIndex
                output += try characterClass(depth: 0)
            case "(":
                groupStarts.append(output.endIndex)
                copy()
                copyGroupOptions()
            case ")":
                copy()
                atomStart = groupStarts.popLast() ?? output.startIndex
            case "{" where isInterval:
                copyInterval()
            case "*", "+", "?", "|":
                copy()
            default:
                atomStart = output.endIndex
                copy()
            }
        }
        return output
    }

    /// `(?m)` of Ruby is `(?s)` elsewhere.
    private mutating func copyGroupOptions() {
        guard current == "?" else { return }
        var end = index + 1
        while end < scalars.count, scalars[end].properties.isAlphabetic || scalars[end] == "-" {
            end += 1
        }
        guard end < scalars.count, scalars[end] == ":" || scalars[end] == ")" else { return }
        while index < end {
            if current == "m" {
                output += "s"
                index += 1
            } else {
                copy()
            }
        }
    }

    private var isInterval: Bool {
        var end = index + 1
        var sawDigit = false
        while end < scalars.count, scalars[end] != "}" {
            guard scalars[end] == "," || ("0"..."9").contains(scalars[end]) else { return false }
            sawDigit = sawDigit || scalars[end] != ","
            end += 1
        }
        return sawDigit && end < scalars.count
    }

    private mutating func copyInterval() {
        while let scalar = current, scalar != "}" {
            // `{,n}` starts at 0.
            if scalar == ",", scalars[index - 1] == "{" { output += "0" }
            copy()
        }
        copy()
        if current == "+" {
            output.insert(contentsOf: "(?:", at: atomStart)
            output += ")"
        }
    }

    /// Translates the escape at the index; inside a class the result is a part of that class.
    private mutating func escape(inClass: Bool) throws(TokenizerError) -> String {
        guard let kind = peek(1) else { throw unsupported("a backslash at the end") }
        let inside: String?
        switch kind {
        case "s": inside = Self.space
        case "w": inside = Self.word
        case "h": inside = "0-9A-Fa-f"
        case "S" where !inClass: return consume(2, "[^\(Self.space)]")
        case "W" where !inClass: return consume(2, "[^\(Self.word)]")
        case "H" where !inClass: return consume(2, "[^0-9A-Fa-f]")
        case "H": throw unsupported("\\H in a class")
        case "u":
            let digits = (2..<6).compactMap { peek($0) }
            guard digits.count == 4, digits.allSatisfy(\.properties.isASCIIHexDigit) else {
                throw unsupported("\\u without four digits")
            }
            let hex = String(String.UnicodeScalarView(digits))
            return consume(6, "\\x{\(hex)}")
        case "p", "P":
            if peek(2) == "{" { return braced() }
            inside = nil
        case "x" where peek(2) == "{": return braced()
        default: inside = nil
        }
        guard let inside else {
            return consume(2, "\\" + String(Character(kind)))
        }
        return consume(2, inClass ? inside : "[\(inside)]")
    }

    private mutating func consume(_ count: Int, _ text: String) -> String {
        index += count
        return text
    }

    private mutating func braced() -> String {
        var text = ""
        while let scalar = current {
            text.unicodeScalars.append(scalar)
            index += 1
            if scalar == "}" { break }
        }
        return text
    }

    /// Translates the class at the index to a class, or to a group when it nests or intersects.
    private mutating func characterClass(depth: Int) throws(TokenizerError) -> String {
        if depth > Self.maximumDepth { throw unsupported("classes nested too deeply") }
        index += 1
        var isNegated = false
        if current == "^" {
            isNegated = true
            index += 1
        }
        var operands: [String] = []
        var union = Union()
        if current == "]" {
            union.items += "\\]"
            index += 1
        }
        while let scalar = current, scalar != "]" {
            switch scalar {
            case "\\": union.items += try escape(inClass: true)
            case "[" where peek(1) == ":":
                union.items += try posixClass()
            case "[":
                union.nested.append(try characterClass(depth: depth + 1))
            case "&" where peek(1) == "&":
                index += 2
                operands.append(union.text)
                union = Union()
            default:
                union.items.unicodeScalars.append(scalar)
                index += 1
            }
        }
        guard current == "]" else { throw unsupported("a class without an end") }
        index += 1
        if operands.isEmpty, union.nested.isEmpty {
            return "[\(isNegated ? "^" : "")\(union.items)]"
        }
        operands.append(union.text)
        // Each operand matches exactly one scalar, so an intersection is a chain of look-aheads.
        let last = operands.removeLast()
        let all = operands.map { "(?=\($0))" }.joined() + last
        return isNegated ? "(?:(?!\(all))(?s:.))" : "(?:\(all))"
    }

    private struct Union {
        var items = ""
        var nested: [String] = []

        var text: String {
            var parts = nested
            if !items.isEmpty { parts.insert("[\(items)]", at: 0) }
            return parts.count == 1 ? parts[0] : "(?:\(parts.joined(separator: "|")))"
        }
    }

    private mutating func posixClass() throws(TokenizerError) -> String {
        var text = ""
        while let scalar = current {
            text.unicodeScalars.append(scalar)
            index += 1
            if scalar == "]" { return text }
        }
        throw unsupported("a class without an end")
    }
}
