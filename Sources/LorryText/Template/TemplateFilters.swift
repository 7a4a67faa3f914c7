import Foundation
import OrderedCollections

/// jinja2's filters, with transformers' own `tojson`.
struct TemplateFilters {
    typealias Arguments = TemplateInterpreter.Arguments

    private static let textNames: Set<String> = [
        "capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower",
        "replace",
        "safe", "string", "striptags", "title", "tojson", "trim", "truncate", "upper", "urlencode",
        "wordcount", "wordwrap",
    ]
    private static let sequenceNames: Set<String> = [
        "batch", "dictsort", "first", "groupby", "items", "join", "last", "list", "map", "max",
        "min", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "sort", "sum",
        "unique",
    ]
    static let names = textNames.union(sequenceNames).union([
        "abs", "attr", "count", "d", "default", "float", "int", "length", "round",
    ])

    /// Filters whose result is escaped text.
    private static let escapes: Set<String> = ["e", "escape", "forceescape", "safe"]
    /// Those, and filters that leave escaped text escaped.
    private static let markupNames = escapes.union([
        "capitalize", "center", "indent", "lower", "string", "title", "trim", "truncate", "upper",
    ])

    let interpreter: TemplateInterpreter

    init(_ interpreter: TemplateInterpreter) {
        self.interpreter = interpreter
    }

    func apply(
        _ name: String, _ value: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        try interpreter.charge()
        if Self.markupNames.contains(name) {
            if case .markup = value, name == "e" || name == "escape" { return value }
            let text = try apply(text: name, value, arguments)
            let isMarkup = if case .markup = value { true } else { Self.escapes.contains(name) }
            return isMarkup ? .markup(text) : .string(text)
        }
        return try applyPlain(name, value.plain, arguments)
    }

    private func apply(
        text name: String, _ value: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> String {
        try PythonText.string(try applyPlain(name, value.plain, arguments))
    }

    private func applyPlain(
        _ name: String, _ value: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        if Self.textNames.contains(name) {
            return try TextFilters(interpreter).apply(name, value, arguments)
        }
        if Self.sequenceNames.contains(name) {
            return try SequenceFilters(interpreter).apply(name, value, arguments)
        }
        switch name {
        case "length", "count": return .int(try value.count())
        case "default", "d":
            let fallback = arguments.value(0, "default_value") ?? .string("")
            let replacesFalse = arguments.value(1, "boolean")?.isTrue ?? false
            return value.isUndefined || (replacesFalse && !value.isTrue) ? fallback : value
        case "abs":
            if let integer = value.integer { return .int(Int(clamping: integer.magnitude)) }
            guard let number = value.number else {
                throw .runtime("bad operand type for abs(): '\(value.typeName)'")
            }
            return .double(abs(number))
        case "attr":
            guard case .string(let attribute)? = arguments.value(0, "name") else {
                throw .runtime("attr needs a name")
            }
            if case .dict = value, !TemplateMethods.isMethod(attribute, of: value) {
                return .undefined("'dict object' has no attribute '\(attribute)'")
            }
            return try interpreter.attribute(value, attribute)
        case "int": return integer(value, arguments)
        case "float":
            let fallback = arguments.value(0, "default") ?? .double(0)
            return Self.double(value).map { .double($0) } ?? fallback
        case "round": return try round(value, arguments)
        default: throw .runtime("No filter named '\(name)'.")
        }
    }

    private static func double(_ value: TemplateValue) -> Double? {
        if let number = value.number { return number }
        guard case .string(let text) = value else { return nil }
        let trimmed = PythonString.strip(text, nil, left: true, right: true)
        if trimmed.contains("x") || trimmed.contains("p") { return nil }
        return Double(trimmed.replacingOccurrences(of: "_", with: ""))
    }

    private func integer(_ value: TemplateValue, _ arguments: Arguments) -> TemplateValue {
        let fallback = arguments.value(0, "default") ?? .int(0)
        if let integer = value.integer { return .int(integer) }
        if case .string(let text) = value {
            let base = arguments.value(1, "base")?.integer ?? 10
            var digits = PythonString.strip(text, nil, left: true, right: true)
                .replacingOccurrences(of: "_", with: "").lowercased()
            let isNegative = digits.hasPrefix("-")
            if isNegative || digits.hasPrefix("+") { digits.removeFirst() }
            for (prefix, prefixBase) in [("0x", 16), ("0o", 8), ("0b", 2)]
            where base == prefixBase && digits.hasPrefix(prefix) {
                digits.removeFirst(2)
            }
            if (2...36).contains(base), let number = Int(digits, radix: base) {
                return .int(isNegative ? -number : number)
            }
        }
        if let number = Self.double(value), let integer = Int(exactly: number.rounded(.towardZero))
        {
            return .int(integer)
        }
        return fallback
    }

    private func round(
        _ value: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        guard let number = value.number else {
            throw .runtime("type \(value.typeName) doesn't define __round__ method")
        }
        let precision = max(-300, min(arguments.value(0, "precision")?.integer ?? 0, 300))
        var method = "common"
        if case .string(let named)? = arguments.value(1, "method") { method = named }
        let scale = pow(10, Double(precision))
        switch method {
        case "common":
            if let integer = value.integer, precision >= 0 { return .int(integer) }
            if precision == 0 { return .double(number.rounded(.toNearestOrEven)) }
            if precision > 0 {
                // As Python: by the decimal digits of the number, not by scaling it.
                return .double(Double(String(format: "%.\(precision)f", number)) ?? number)
            }
            let rounded = (number * scale).rounded(.toNearestOrEven) / scale
            return value.integer == nil ? .double(rounded) : .int(Int(exactly: rounded) ?? 0)
        case "ceil": return .double((number * scale).rounded(.up) / scale)
        case "floor": return .double((number * scale).rounded(.down) / scale)
        default: throw .runtime("method must be common, ceil or floor")
        }
    }
}

extension TemplateInterpreter.Arguments {
    /// An argument by position or name.
    func value(_ index: Int, _ name: String) -> TemplateValue? {
        index < positional.count ? positional[index] : named[name]
    }

    func integer(_ index: Int, _ name: String) throws(TemplateError) -> Int? {
        guard let value = value(index, name) else { return nil }
        if case .none = value { return nil }
        guard let integer = value.integer else {
            throw .runtime("\(name) must be an integer, not '\(value.typeName)'")
        }
        return integer
    }

    func text(_ index: Int, _ name: String) throws(TemplateError) -> String? {
        guard let value = value(index, name) else { return nil }
        if case .none = value { return nil }
        return try PythonText.string(value)
    }
}
