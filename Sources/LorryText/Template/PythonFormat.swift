import Foundation
import OrderedCollections

/// Python's two ways of formatting: `"%s" % value` and `"{}".format(value)`.
struct PythonFormat {
    /// How a value is laid out.
    private struct Layout {
        var fill = " "
        var alignment: Character?
        var sign: Character = "-"
        var isAlternate = false
        var isZeroPadded = false
        var width = 0
        var grouping: Character?
        var precision: Int?
        var type: Character = "s"
    }

    /// Wider fields are refused.
    private static let maximumWidth = 10_000

    private let interpreter: TemplateInterpreter

    init(_ interpreter: TemplateInterpreter) {
        self.interpreter = interpreter
    }

    // MARK: Percent

    func percent(_ format: String, _ operand: TemplateValue) throws(TemplateError) -> String {
        var values = [operand]
        if case .tuple(let several) = operand { values = several }
        var output = ""
        var next = 0
        var usesKeys = false
        var scalars = Array(format)[...]
        func take() throws(TemplateError) -> TemplateValue {
            guard next < values.count else {
                throw .runtime("not enough arguments for format string")
            }
            next += 1
            return values[next - 1]
        }
        while let character = scalars.popFirst() {
            if character != "%" {
                output.append(character)
                continue
            }
            var layout = Layout()
            layout.alignment = ">"
            var value: TemplateValue?
            if scalars.first == "(" {
                guard let end = scalars.firstIndex(of: ")") else {
                    throw .runtime("incomplete format key")
                }
                usesKeys = true
                value = try interpreter.item(
                    operand, .string(String(scalars[(scalars.startIndex + 1)..<end])))
                scalars = scalars[(end + 1)...]
            }
            while let flag = scalars.first, "-+ 0#".contains(flag) {
                scalars.removeFirst()
                switch flag {
                case "-": layout.alignment = "<"
                case "0": layout.isZeroPadded = true
                case "#": layout.isAlternate = true
                default: layout.sign = flag
                }
            }
            layout.width = try number(&scalars) ?? 0
            if scalars.first == "." {
                scalars.removeFirst()
                layout.precision = try number(&scalars) ?? 0
            }
            guard let type = scalars.popFirst() else { throw .runtime("incomplete format") }
            if type == "%" {
                output += "%"
                continue
            }
            let argument: TemplateValue
            if let value { argument = value } else { argument = try take() }
            output += try percentField(argument, type, layout)
            try interpreter.charge(output.utf8.count / 16)
        }
        if !usesKeys, next < values.count {
            if case .dict = operand { return output }
            throw .runtime("not all arguments converted during string formatting")
        }
        return output
    }

    private func percentField(
        _ value: TemplateValue, _ type: Character, _ layout: Layout
    ) throws(TemplateError) -> String {
        var layout = layout
        switch type {
        case "s", "r", "a":
            var text =
                type == "s"
                ? try PythonText.string(value) : try PythonText.representation(value)
            if let precision = layout.precision {
                text = PythonString.string(text.unicodeScalars.prefix(precision))
            }
            layout.isZeroPadded = false
            return pad(text, layout)
        case "d", "i", "u":
            guard let number = value.number else {
                throw .runtime("%d format: a real number is required, not \(value.typeName)")
            }
            let integer = value.integer ?? Int(exactly: number.rounded(.towardZero)) ?? 0
            layout.type = "d"
            return numeric(digits: String(integer.magnitude), isNegative: integer < 0, layout)
        case "f", "F", "e", "E", "g", "G":
            guard let number = value.number else {
                throw .runtime("must be real number, not \(value.typeName)")
            }
            layout.type = type
            return numeric(
                digits: float(number.magnitude, layout), isNegative: number.sign == .minus, layout)
        case "x", "X", "o":
            guard let integer = value.integer else {
                throw .runtime("%\(type) format: an integer is required, not \(value.typeName)")
            }
            layout.type = type
            return numeric(
                digits: radix(integer.magnitude, layout), isNegative: integer < 0, layout)
        case "c":
            if let code = value.integer, let scalar = Unicode.Scalar(UInt32(clamping: code)) {
                return pad(String(Character(scalar)), layout)
            }
            return pad(try PythonText.string(value), layout)
        default:
            throw .runtime("unsupported format character '\(type)'")
        }
    }

    private func number(_ scalars: inout ArraySlice<Character>) throws(TemplateError) -> Int? {
        var digits = ""
        while let digit = scalars.first, ("0"..."9").contains(digit) {
            digits.append(digit)
            scalars.removeFirst()
        }
        if digits.isEmpty { return nil }
        guard let number = Int(digits), number <= Self.maximumWidth else {
            throw .limit("a format's width or precision is too large")
        }
        return number
    }

    // MARK: Format

    func format(
        _ format: String, _ arguments: TemplateInterpreter.Arguments
    ) throws(TemplateError) -> String {
        var output = ""
        var next = 0
        var scalars = Array(format)[...]
        while let character = scalars.popFirst() {
            if character == "{" || character == "}", scalars.first == character {
                scalars.removeFirst()
                output.append(character)
            } else if character == "{" {
                output += try field(&scalars, arguments, &next)
                try interpreter.charge(output.utf8.count / 16)
            } else if character == "}" {
                throw .runtime("Single '}' encountered in format string")
            } else {
                output.append(character)
            }
        }
        return output
    }

    private func field(
        _ scalars: inout ArraySlice<Character>, _ arguments: TemplateInterpreter.Arguments,
        _ next: inout Int
    ) throws(TemplateError) -> String {
        var name = ""
        while let character = scalars.first, !"!:}".contains(character) {
            name.append(character)
            scalars.removeFirst()
        }
        var conversion: Character?
        if scalars.first == "!" {
            scalars.removeFirst()
            conversion = scalars.popFirst()
        }
        var specification = ""
        if scalars.first == ":" {
            scalars.removeFirst()
            while let character = scalars.first, character != "}" {
                if character == "{" {
                    scalars.removeFirst()
                    specification += try field(&scalars, arguments, &next)
                } else {
                    specification.append(character)
                    scalars.removeFirst()
                }
            }
        }
        guard scalars.popFirst() == "}" else {
            throw .runtime("expected '}' before end of string")
        }
        let value = try fieldValue(name, arguments, &next)
        switch conversion {
        case nil: return try formatted(value, specification)
        case "s": return try formatted(.string(try PythonText.string(value)), specification)
        default: return try formatted(.string(try PythonText.representation(value)), specification)
        }
    }

    private func fieldValue(
        _ name: String, _ arguments: TemplateInterpreter.Arguments, _ next: inout Int
    ) throws(TemplateError) -> TemplateValue {
        let head = name.prefix { $0 != "." && $0 != "[" }
        var value: TemplateValue
        if head.isEmpty || Int(head) != nil {
            let index = Int(head) ?? next
            if head.isEmpty { next += 1 }
            guard arguments.positional.indices.contains(index) else {
                throw .runtime(
                    "Replacement index \(index) out of range for positional args tuple")
            }
            value = arguments.positional[index]
        } else if let named = arguments.named[String(head)] {
            value = named
        } else {
            throw .runtime("KeyError: '\(head)'")
        }
        var rest = name.dropFirst(head.count)
        while let mark = rest.popFirst() {
            let end = mark == "[" ? rest.firstIndex(of: "]") : nil
            let part =
                mark == "["
                ? rest[..<(end ?? rest.endIndex)] : rest.prefix { $0 != "." && $0 != "[" }
            rest = rest[part.endIndex...]
            if mark == "[" { rest = rest.dropFirst() }
            if mark == "[" {
                let key = Int(part).map { TemplateValue.int($0) } ?? .string(String(part))
                value = try interpreter.item(value, key)
            } else {
                value = try interpreter.attribute(value, String(part))
            }
        }
        return value
    }

    private func formatted(
        _ value: TemplateValue, _ specification: String
    ) throws(TemplateError) -> String {
        if specification.isEmpty { return try PythonText.string(value) }
        let layout = try parse(specification, isNumber: value.number != nil)
        switch layout.type {
        case "d", "x", "X", "o", "b":
            guard let integer = value.integer else { throw unknown(layout.type, value) }
            return numeric(
                digits: radix(integer.magnitude, layout), isNegative: integer < 0, layout)
        case "f", "F", "e", "E", "g", "G", "%":
            guard let number = value.number else { throw unknown(layout.type, value) }
            let scaled = layout.type == "%" ? number * 100 : number
            let digits = float(scaled.magnitude, layout) + (layout.type == "%" ? "%" : "")
            return numeric(digits: digits, isNegative: number.sign == .minus, layout)
        default:
            var text = try PythonText.string(value)
            if value.number != nil {
                let isNegative = text.hasPrefix("-")
                if isNegative { text.removeFirst() }
                return numeric(digits: text, isNegative: isNegative, layout)
            }
            if let precision = layout.precision {
                text = PythonString.string(text.unicodeScalars.prefix(precision))
            }
            return pad(text, layout)
        }
    }

    private func unknown(_ type: Character, _ value: TemplateValue) -> TemplateError {
        .runtime("Unknown format code '\(type)' for object of type '\(value.typeName)'")
    }

    private func parse(_ text: String, isNumber: Bool) throws(TemplateError) -> Layout {
        var layout = Layout()
        var rest = Array(text)[...]
        if rest.count > 1, "<>=^".contains(rest[1]) {
            layout.fill = String(rest.removeFirst())
            layout.alignment = rest.removeFirst()
        } else if let first = rest.first, "<>=^".contains(first) {
            layout.alignment = rest.removeFirst()
        }
        if let sign = rest.first, "+- ".contains(sign) { layout.sign = rest.removeFirst() }
        if rest.first == "#" {
            layout.isAlternate = true
            rest.removeFirst()
        }
        if rest.first == "0" {
            layout.isZeroPadded = true
            rest.removeFirst()
        }
        layout.width = try number(&rest) ?? 0
        if let mark = rest.first, mark == "," || mark == "_" {
            layout.grouping = rest.removeFirst()
        }
        if rest.first == "." {
            rest.removeFirst()
            guard let precision = try number(&rest) else {
                throw .runtime("Format specifier missing precision")
            }
            layout.precision = precision
        }
        if let type = rest.popFirst() {
            layout.type = type
        } else if isNumber {
            layout.type = layout.precision != nil ? "g" : layout.grouping != nil ? "d" : "s"
        }
        if !rest.isEmpty { throw .runtime("Invalid format specifier") }
        if layout.alignment == nil { layout.alignment = isNumber ? ">" : "<" }
        return layout
    }

    // MARK: Layout

    private func radix(_ magnitude: UInt, _ layout: Layout) -> String {
        switch layout.type {
        case "x": (layout.isAlternate ? "0x" : "") + String(magnitude, radix: 16)
        case "X": (layout.isAlternate ? "0X" : "") + String(magnitude, radix: 16, uppercase: true)
        case "o": (layout.isAlternate ? "0o" : "") + String(magnitude, radix: 8)
        case "b": (layout.isAlternate ? "0b" : "") + String(magnitude, radix: 2)
        default: String(magnitude)
        }
    }

    private func float(_ magnitude: Double, _ layout: Layout) -> String {
        if !magnitude.isFinite { return magnitude.isNaN ? "nan" : "inf" }
        let precision = layout.precision ?? 6
        let type = layout.type == "%" ? "f" : layout.type
        return String(format: "%.\(precision)\(type)", magnitude)
    }

    private func numeric(digits: String, isNegative: Bool, _ layout: Layout) -> String {
        var digits = digits
        if let mark = layout.grouping {
            let whole = digits.prefix { $0.isNumber }
            var grouped = ""
            for (index, digit) in whole.enumerated() {
                if index > 0, (whole.count - index) % 3 == 0 { grouped.append(mark) }
                grouped.append(digit)
            }
            digits = grouped + digits.dropFirst(whole.count)
        }
        let sign = isNegative ? "-" : layout.sign == "-" ? "" : String(layout.sign)
        if layout.alignment == "=" || (layout.isZeroPadded && layout.alignment != "<") {
            let missing = max(0, layout.width - sign.count - digits.count)
            let fill = layout.alignment == "=" && layout.fill != " " ? layout.fill : "0"
            return sign + String(repeating: fill, count: missing) + digits
        }
        return pad(sign + digits, layout)
    }

    private func pad(_ text: String, _ layout: Layout) -> String {
        let missing = max(0, layout.width - text.unicodeScalars.count)
        switch layout.alignment {
        case "<": return text + String(repeating: layout.fill, count: missing)
        case "^":
            let left = missing / 2
            return String(repeating: layout.fill, count: left) + text
                + String(repeating: layout.fill, count: missing - left)
        default: return String(repeating: layout.fill, count: missing) + text
        }
    }
}
