import Foundation

/// Python's operators on template values.
struct TemplateOperators {
    private let interpreter: TemplateInterpreter

    init(_ interpreter: TemplateInterpreter) {
        self.interpreter = interpreter
    }

    static func compare(
        _ op: String, _ left: TemplateValue, _ right: TemplateValue
    ) throws(TemplateError) -> Bool {
        switch op {
        case "==": return left.equals(right)
        case "!=": return !left.equals(right)
        case "in": return try right.contains(left)
        case "not in": return try !right.contains(left)
        default: break
        }
        if left.isUndefined || right.isUndefined {
            if case .undefined(let what) = left { throw .runtime(what) }
            if case .undefined(let what) = right { throw .runtime(what) }
        }
        switch op {
        case "<": return try left.isLess(than: right)
        case ">": return try right.isLess(than: left)
        case "<=": return try left.isLess(than: right) || left.equals(right)
        default: return try right.isLess(than: left) || left.equals(right)
        }
    }

    static func negate(_ value: TemplateValue) throws(TemplateError) -> TemplateValue {
        if case .double(let double) = value { return .double(-double) }
        if let integer = value.integer {
            let (result, overflow) = (0).subtractingReportingOverflow(integer)
            if !overflow { return .int(result) }
        }
        if case .undefined(let what) = value { throw .runtime(what) }
        throw .runtime("bad operand type for unary -: '\(value.typeName)'")
    }

    func arithmetic(
        _ op: String, _ left: TemplateValue, _ right: TemplateValue
    ) throws(TemplateError) -> TemplateValue {
        if case .undefined(let what) = left { throw .runtime(what) }
        if let result = try markup(op, left, right) { return result }
        if op == "%", case .string(let format) = left {
            return .string(try PythonFormat(interpreter).percent(format, right))
        }
        if case .undefined(let what) = right { throw .runtime(what) }
        if let first = left.integer, let second = right.integer {
            return try integers(op, first, second)
        }
        if let first = left.number, let second = right.number {
            return .double(try doubles(op, first, second))
        }
        switch (op, left, right) {
        case ("+", .string(let first), .string(let second)):
            try interpreter.charge(first.utf8.count + second.utf8.count)
            return .string(first + second)
        case ("+", .list(let first), .list(let second)):
            try interpreter.charge((first.count + second.count) * 16)
            return .list(first + second)
        case ("+", .tuple(let first), .tuple(let second)):
            try interpreter.charge((first.count + second.count) * 16)
            return .tuple(first + second)
        case ("*", _, _):
            if let count = right.integer { return try repeated(left, count, right) }
            if let count = left.integer { return try repeated(right, count, left) }
        default: break
        }
        throw unsupported(op, left, right)
    }

    /// Adding text to escaped text escapes it, on either side.
    private func markup(
        _ op: String, _ left: TemplateValue, _ right: TemplateValue
    ) throws(TemplateError) -> TemplateValue? {
        func escaped(_ value: TemplateValue) -> String? {
            switch value {
            case .markup(let text): text
            case .string(let text): TextFilters.escaped(text)
            default: nil
            }
        }
        switch (op, left, right) {
        case ("+", .markup, _), ("+", _, .markup):
            guard let first = escaped(left), let second = escaped(right) else {
                throw unsupported(op, left, right)
            }
            try interpreter.charge(first.utf8.count + second.utf8.count)
            return .markup(first + second)
        case ("%", .markup(let format), _):
            var values = [right]
            if case .tuple(let several) = right { values = several }
            let operand = values.map { value in escaped(value).map { .string($0) } ?? value }
            return .markup(try PythonFormat(interpreter).percent(format, .tuple(operand)))
        case ("*", .markup(let text), _):
            guard let count = right.integer else { return nil }
            return try repeated(.string(text), count, right)
        default: return nil
        }
    }

    private func unsupported(
        _ op: String, _ left: TemplateValue, _ right: TemplateValue
    ) -> TemplateError {
        if op == "+", case .string = left {
            return .runtime("can only concatenate str (not \"\(right.typeName)\") to str")
        }
        return .runtime(
            "unsupported operand type(s) for \(op): '\(left.typeName)' and '\(right.typeName)'")
    }

    private func repeated(
        _ value: TemplateValue, _ count: Int, _ other: TemplateValue
    ) throws(TemplateError) -> TemplateValue {
        func size(_ unit: Int) throws(TemplateError) -> Int {
            let (size, overflow) = unit.multipliedReportingOverflow(by: max(count, 0))
            if overflow { throw .limit("a repetition is too large") }
            try interpreter.charge(size)
            return max(count, 0)
        }
        switch value {
        case .string(let text):
            return .string(String(repeating: text, count: try size(text.utf8.count)))
        case .list(let elements):
            let times = try size(elements.count * 16)
            return .list(Array(repeating: elements, count: times).flatMap { $0 })
        case .tuple(let elements):
            let times = try size(elements.count * 16)
            return .tuple(Array(repeating: elements, count: times).flatMap { $0 })
        default: throw unsupported("*", value, other)
        }
    }

    private func integers(_ op: String, _ left: Int, _ right: Int) throws(TemplateError)
        -> TemplateValue
    {
        let result: (partialValue: Int, overflow: Bool)
        switch op {
        case "+": result = left.addingReportingOverflow(right)
        case "-": result = left.subtractingReportingOverflow(right)
        case "*": result = left.multipliedReportingOverflow(by: right)
        case "/":
            if right == 0 { throw .runtime("division by zero") }
            return .double(Double(left) / Double(right))
        case "//", "%":
            if right == 0 { throw .runtime("integer division or modulo by zero") }
            let (quotient, overflow) = left.dividedReportingOverflow(by: right)
            if overflow { throw .runtime("a number is too large") }
            let remainder = left - quotient * right
            let isRoundedUp = remainder != 0 && (remainder < 0) != (right < 0)
            return .int(
                op == "//"
                    ? quotient - (isRoundedUp ? 1 : 0) : remainder + (isRoundedUp ? right : 0))
        default:
            if right < 0 { return .double(pow(Double(left), Double(right))) }
            var power = 1
            for _ in 0..<min(right, 64) where left != 0 && left != 1 && left != -1 {
                let (next, overflow) = power.multipliedReportingOverflow(by: left)
                if overflow { throw .runtime("a number is too large") }
                power = next
            }
            if right > 0, (-1...1).contains(left) {
                power = left == -1 && right % 2 == 0 ? 1 : left
            }
            return .int(power)
        }
        if result.overflow { throw .runtime("a number is too large") }
        return .int(result.partialValue)
    }

    private func doubles(_ op: String, _ left: Double, _ right: Double) throws(TemplateError)
        -> Double
    {
        switch op {
        case "+": return left + right
        case "-": return left - right
        case "*": return left * right
        case "**": return pow(left, right)
        default:
            if right == 0 { throw .runtime("float division by zero") }
            if op == "/" { return left / right }
            if op == "//" { return (left / right).rounded(.down) }
            let remainder = fmod(left, right)
            return remainder != 0 && (remainder < 0) != (right < 0) ? remainder + right : remainder
        }
    }

    /// Python's `value[start:stop:step]`.
    func slice(
        _ value: TemplateValue, _ start: Int?, _ stop: Int?, _ step: Int?
    ) throws(TemplateError) -> TemplateValue {
        let step = step ?? 1
        if step == 0 { throw .runtime("slice step cannot be zero") }
        switch value {
        case .string(let text):
            let scalars = Array(text.unicodeScalars)
            try interpreter.charge(scalars.count)
            let picked = indices(scalars.count, start, stop, step).map { scalars[$0] }
            return .string(String(String.UnicodeScalarView(picked)))
        case .list(let elements):
            try interpreter.charge(elements.count * 8)
            return .list(indices(elements.count, start, stop, step).map { elements[$0] })
        case .tuple(let elements):
            return .tuple(indices(elements.count, start, stop, step).map { elements[$0] })
        case .lazy(.range, let elements):
            return .lazy(.range, indices(elements.count, start, stop, step).map { elements[$0] })
        case .undefined(let what):
            throw .runtime(what)
        default:
            // As with any failing subscript: the result is undefined.
            return .undefined("'\(value.typeName)' object is not subscriptable")
        }
    }

    private func indices(_ count: Int, _ start: Int?, _ stop: Int?, _ step: Int) -> [Int] {
        func clamp(_ bound: Int?, default fallback: Int) -> Int {
            guard var bound else { return fallback }
            if bound < 0 { bound = max(bound + count, step < 0 ? -1 : 0) }
            return min(bound, step < 0 ? count - 1 : count)
        }
        let first = clamp(start, default: step < 0 ? count - 1 : 0)
        let last = clamp(stop, default: step < 0 ? -1 : count)
        return Array(stride(from: first, to: last, by: step))
    }
}
