/// One lexical unit of a template.
struct TemplateToken: Equatable {
    enum Kind: Equatable {
        case text(String)
        case blockBegin, blockEnd, variableBegin, variableEnd
        case name(String)
        case string(String)
        case integer(Int)
        case float(Double)
        case op(String)
        case end
    }

    var kind: Kind
    var line: Int
}

/// Cuts a template into tokens as jinja2's lexer does with `trim_blocks` and `lstrip_blocks`.
struct TemplateLexer {
    private let source: [Unicode.Scalar]
    private var index = 0
    private var line = 1
    private var tokens: [TemplateToken] = []
    /// Whether what was read last ended with a newline.
    private var isLineStart = true

    init(_ text: String) {
        // Line ends are unified, and one newline at the very end is not a part of the template.
        var scalars: [Unicode.Scalar] = []
        scalars.reserveCapacity(text.utf8.count)
        var afterReturn = false
        for scalar in text.unicodeScalars {
            if scalar == "\n" && afterReturn {
                afterReturn = false
                continue
            }
            afterReturn = scalar == "\r"
            scalars.append(afterReturn ? "\n" : scalar)
        }
        if scalars.last == "\n" { scalars.removeLast() }
        source = scalars
    }

    static func tokens(of text: String) throws(TemplateError) -> [TemplateToken] {
        var lexer = TemplateLexer(text)
        try lexer.run()
        return lexer.tokens
    }

    private func at(_ offset: Int) -> Unicode.Scalar {
        index + offset < source.count ? source[index + offset] : "\0"
    }

    private func starts(with text: String, at start: Int) -> Bool {
        var position = start
        for scalar in text.unicodeScalars {
            guard position < source.count, source[position] == scalar else { return false }
            position += 1
        }
        return true
    }

    private mutating func advance(_ count: Int) {
        for _ in 0..<count where index < source.count {
            if source[index] == "\n" { line += 1 }
            index += 1
        }
    }

    private mutating func add(_ kind: TemplateToken.Kind) {
        tokens.append(TemplateToken(kind: kind, line: line))
    }

    private mutating func run() throws(TemplateError) {
        while index < source.count {
            let start = index
            var tag = index
            while tag < source.count, !isTag(at: tag) { tag += 1 }
            if tag >= source.count {
                addText(start, source.count)
                break
            }
            try readTag(textStart: start, tag: tag)
        }
        add(.end)
    }

    private func isTag(at position: Int) -> Bool {
        guard source[position] == "{", position + 1 < source.count else { return false }
        let next = source[position + 1]
        return next == "{" || next == "%" || next == "#"
    }

    private mutating func addText(_ start: Int, _ end: Int) {
        if end > start {
            add(.text(String(String.UnicodeScalarView(source[start..<end]))))
        }
    }

    /// Where the text before a tag ends once the tag's whitespace control has been applied.
    private func textEnd(_ start: Int, _ tag: Int, isVariable: Bool) -> Int {
        let sign = tag + 2 < source.count ? source[tag + 2] : "\0"
        var end = tag
        if sign == "-" {
            while end > start, source[end - 1].properties.isWhitespace { end -= 1 }
            return end
        }
        if sign == "+" || isVariable { return tag }
        while end > start, source[end - 1] != "\n" {
            if !source[end - 1].properties.isWhitespace { return tag }
            end -= 1
        }
        return end > start || isLineStart ? end : tag
    }

    private mutating func readTag(textStart: Int, tag: Int) throws(TemplateError) {
        let kind = source[tag + 1]
        addText(textStart, textEnd(textStart, tag, isVariable: kind == "{"))
        advance(tag - index + 2)
        if at(0) == "-" || at(0) == "+" { advance(1) }
        isLineStart = false
        switch kind {
        case "#": try skipComment()
        case "{":
            add(.variableBegin)
            try readCode(end: "}}", endToken: .variableEnd)
        default:
            if try readRaw() { return }
            add(.blockBegin)
            try readCode(end: "%}", endToken: .blockEnd)
        }
    }

    /// Moves past the end of a tag, and past the white space that it takes along.
    private mutating func closeTag(sign: Unicode.Scalar, trimsNewline: Bool) {
        advance(sign == "-" || sign == "+" ? 3 : 2)
        isLineStart = false
        if sign == "-" {
            while index < source.count, source[index].properties.isWhitespace {
                isLineStart = source[index] == "\n"
                advance(1)
            }
        } else if sign != "+", trimsNewline, at(0) == "\n" {
            advance(1)
            isLineStart = true
        }
    }

    private mutating func skipComment() throws(TemplateError) {
        let first = line
        while index < source.count {
            if starts(with: "#}", at: index) {
                closeTag(sign: " ", trimsNewline: true)
                return
            }
            if at(0) == "-" || at(0) == "+", starts(with: "#}", at: index + 1) {
                closeTag(sign: at(0), trimsNewline: true)
                return
            }
            advance(1)
        }
        throw .syntax("Missing end of comment tag", first)
    }

    /// Reads `{% raw %}…{% endraw %}` behind its `{%`; false when the tag is another one.
    private mutating func readRaw() throws(TemplateError) -> Bool {
        guard let end = keywordEnd("raw", at: index) else { return false }
        guard starts(with: "%}", at: end) || starts(with: "-%}", at: end) else { return false }
        let first = line
        advance(end - index)
        closeTag(sign: at(0), trimsNewline: false)
        let start = index
        var tag = index
        while tag < source.count {
            if starts(with: "{%", at: tag) {
                let sign = tag + 2 < source.count ? source[tag + 2] : "\0"
                let name = sign == "-" || sign == "+" ? tag + 3 : tag + 2
                if let end = keywordEnd("endraw", at: name),
                    ["%}", "-%}", "+%}"].contains(where: { starts(with: $0, at: end) })
                {
                    addText(start, textEnd(start, tag, isVariable: false))
                    advance(end - index)
                    closeTag(sign: at(0), trimsNewline: true)
                    return true
                }
            }
            tag += 1
        }
        throw .syntax("Missing end of raw directive", first)
    }

    /// The position behind `keyword` and the white space around it.
    private func keywordEnd(_ keyword: String, at start: Int) -> Int? {
        var position = start
        while position < source.count, source[position].properties.isWhitespace { position += 1 }
        guard starts(with: keyword, at: position) else { return nil }
        position += keyword.unicodeScalars.count
        while position < source.count, source[position].properties.isWhitespace { position += 1 }
        return position
    }

    private mutating func readCode(
        end: String, endToken: TemplateToken.Kind
    ) throws(TemplateError) {
        var open: [Unicode.Scalar] = []
        while index < source.count {
            if open.isEmpty {
                let hasSign = at(0) == "-" || (at(0) == "+" && end == "%}")
                if starts(with: end, at: index) || (hasSign && starts(with: end, at: index + 1)) {
                    add(endToken)
                    closeTag(sign: hasSign ? at(0) : " ", trimsNewline: end == "%}")
                    return
                }
            }
            let scalar = at(0)
            if scalar.properties.isWhitespace {
                advance(1)
            } else if scalar == "'" || scalar == "\"" {
                try readString()
            } else if ("0"..."9").contains(scalar) {
                try readNumber()
            } else if scalar == "_" || scalar.properties.isXIDStart {
                readName()
            } else {
                try readOperator(&open)
            }
        }
        throw .syntax("unexpected end of template", line)
    }

    private mutating func readName() {
        var name = String.UnicodeScalarView()
        while index < source.count, at(0) == "_" || at(0).properties.isXIDContinue {
            name.append(at(0))
            index += 1
        }
        add(.name(String(name)))
    }

    private mutating func readOperator(_ open: inout [Unicode.Scalar]) throws(TemplateError) {
        for text in ["//", "**", "==", "!=", ">=", "<="] where starts(with: text, at: index) {
            add(.op(text))
            index += 2
            return
        }
        let scalar = at(0)
        guard "+-/*%~[](){}><=.:|,;".unicodeScalars.contains(scalar) else {
            throw .syntax("unexpected char '\(scalar)'", line)
        }
        switch scalar {
        case "{": open.append("}")
        case "(": open.append(")")
        case "[": open.append("]")
        case "}", ")", "]":
            guard open.popLast() == scalar else { throw .syntax("unexpected '\(scalar)'", line) }
        default: break
        }
        add(.op(String(Character(scalar))))
        index += 1
    }

    private mutating func readNumber() throws(TemplateError) {
        let first = line
        if at(0) == "0", let radix = ["x": 16, "o": 8, "b": 2][at(1).properties.lowercaseMapping] {
            index += 2
            let digits = takeDigits { $0 == "_" || $0.properties.isASCIIHexDigit }
            guard let value = Int(digits, radix: radix) else {
                throw .syntax("a bad number", first)
            }
            add(.integer(value))
            return
        }
        var text = takeDigits { $0 == "_" || ("0"..."9").contains($0) }
        var isFloat = false
        if at(0) == ".", ("0"..."9").contains(at(1)) {
            isFloat = true
            index += 1
            text += "." + takeDigits { $0 == "_" || ("0"..."9").contains($0) }
        }
        let signed = at(1) == "+" || at(1) == "-"
        if at(0) == "e" || at(0) == "E", ("0"..."9").contains(at(signed ? 2 : 1)) {
            isFloat = true
            text += "e" + (signed ? String(Character(at(1))) : "")
            index += signed ? 2 : 1
            text += takeDigits { $0 == "_" || ("0"..."9").contains($0) }
        }
        if isFloat, let value = Double(text) {
            add(.float(value))
        } else if let value = Int(text) {
            add(.integer(value))
        } else {
            throw .syntax("the number \(text) is too large", first)
        }
    }

    private mutating func takeDigits(_ isPart: (Unicode.Scalar) -> Bool) -> String {
        var text = ""
        while index < source.count, isPart(at(0)) {
            if at(0) != "_" { text.unicodeScalars.append(at(0)) }
            index += 1
        }
        return text
    }

    private mutating func readString() throws(TemplateError) {
        let quote = at(0)
        let first = line
        var text = String.UnicodeScalarView()
        advance(1)
        while index < source.count {
            let scalar = at(0)
            if scalar == quote {
                tokens.append(TemplateToken(kind: .string(String(text)), line: first))
                index += 1
                return
            }
            if scalar == "\\" {
                try readEscape(into: &text)
            } else {
                text.append(scalar)
                advance(1)
            }
        }
        throw .syntax("a string does not end", first)
    }

    private mutating func readEscape(into text: inout String.UnicodeScalarView)
        throws(TemplateError)
    {
        let kind = at(1)
        let simple: [Unicode.Scalar: Unicode.Scalar] = [
            "n": "\n", "t": "\t", "r": "\r", "b": "\u{8}", "f": "\u{C}", "v": "\u{B}", "a": "\u{7}",
            "\\": "\\", "'": "'", "\"": "\"",
        ]
        if let scalar = simple[kind] {
            text.append(scalar)
            advance(2)
        } else if kind == "\n" {
            advance(2)
        } else if let count = ["x": 2, "u": 4, "U": 8][String(Character(kind))] {
            advance(2)
            let digits = String(String.UnicodeScalarView((0..<count).map { at($0) }))
            guard let value = UInt32(digits, radix: 16) else {
                throw .syntax("a bad escape in a string", line)
            }
            // A lone surrogate has no meaning in text.
            text.append(Unicode.Scalar(value) ?? "\u{FFFD}")
            advance(count)
        } else if ("0"..."7").contains(kind) {
            advance(1)
            var value: UInt32 = 0
            for _ in 0..<3 where ("0"..."7").contains(at(0)) {
                value = value * 8 + at(0).value - 48
                advance(1)
            }
            text.append(Unicode.Scalar(value) ?? "\u{FFFD}")
        } else if kind == "N" {
            throw .syntax("names of characters in strings are not supported", line)
        } else {
            text.append("\\")
            advance(1)
        }
    }
}
