import Foundation
import OrderedCollections

/// Values of expressions.
extension TemplateInterpreter {
    func evaluate(
        _ arguments: TemplateArguments, _ scope: TemplateScope
    ) throws(TemplateError) -> Arguments {
        var result = Arguments()
        for expression in arguments.positional {
            result.positional.append(try evaluate(expression, scope).plain)
        }
        if let spread = arguments.spread {
            result.positional += try evaluate(spread, scope).elements()
        }
        for (name, expression) in arguments.named {
            result.named[name] = try evaluate(expression, scope).plain
        }
        if let spread = arguments.namedSpread {
            guard case .dict(let dict) = try evaluate(spread, scope) else {
                throw .runtime("argument after ** must be a mapping")
            }
            for (key, value) in dict {
                guard case .string(let name) = key else {
                    throw .runtime("keywords must be strings")
                }
                result.named[name] = value
            }
        }
        return result
    }

    func evaluate(
        _ expression: TemplateExpression, _ scope: TemplateScope
    ) throws(TemplateError) -> TemplateValue {
        try charge()
        try enter()
        defer { depth -= 1 }
        switch expression {
        case .constant(let value): return TemplateValue(value)
        case .name(let name): return lookup(name, scope)
        case .list(let elements): return .list(try evaluate(elements, scope))
        case .tuple(let elements): return .tuple(try evaluate(elements, scope))
        case .dict(let entries): return try evaluateDict(entries, scope)
        case .attribute(let base, let name):
            return try attribute(try evaluate(base, scope).plain, name)
        case .subscripted(let base, let key):
            return try item(try evaluate(base, scope).plain, try evaluate(key, scope).plain)
        case .slice(let base, let start, let stop, let step):
            return try evaluateSlice(base, [start, stop, step], scope)
        case .call(let callee, let arguments, let line):
            let function = try evaluate(callee, scope)
            return try call(function, try evaluate(arguments, scope), line: line)
        case .filter(let base, let filter):
            let value = try evaluate(base, scope)
            return try apply([filter], to: value, scope)
        case .test(let base, let name, let arguments):
            let value = try evaluate(base, scope)
            let result = try TemplateTests.apply(name, value.plain, try evaluate(arguments, scope))
            return .bool(result)
        case .not(let operand): return .bool(!(try evaluate(operand, scope).isTrue))
        case .and(let operands): return try evaluateLogic(operands, stopsAt: false, scope)
        case .or(let operands): return try evaluateLogic(operands, stopsAt: true, scope)
        case .conditional(let value, let condition, let otherwise):
            if try evaluate(condition, scope).isTrue { return try evaluate(value, scope) }
            guard let otherwise else {
                return .undefined("the inline if-expression was false and has no else")
            }
            return try evaluate(otherwise, scope)
        case .compare(let first, let operands): return try evaluateCompare(first, operands, scope)
        case .concat(let parts): return try evaluateConcat(parts, scope)
        case .arithmetic(let first, let operands):
            return try evaluateArithmetic(first, operands, scope)
        case .negative(let operand):
            return try TemplateOperators.negate(try evaluate(operand, scope))
        case .positive(let operand):
            let value = try evaluate(operand, scope)
            guard value.number != nil else {
                throw .runtime("bad operand type for unary +: '\(value.typeName)'")
            }
            return value.integer.map { .int($0) } ?? value
        }
    }

    private func evaluate(
        _ expressions: [TemplateExpression], _ scope: TemplateScope
    ) throws(TemplateError) -> [TemplateValue] {
        var values: [TemplateValue] = []
        values.reserveCapacity(expressions.count)
        for expression in expressions { values.append(try evaluate(expression, scope)) }
        return values
    }

    private func lookup(_ name: String, _ scope: TemplateScope) -> TemplateValue {
        if let value = scope.lookup(name) { return value }
        if TemplateFunctions.names.contains(name) { return .function(name) }
        return .undefined("'\(name)' is undefined")
    }

    private func evaluateDict(
        _ entries: [(key: TemplateExpression, value: TemplateExpression)], _ scope: TemplateScope
    ) throws(TemplateError) -> TemplateValue {
        var dict: OrderedDictionary<TemplateKey, TemplateValue> = [:]
        for entry in entries {
            dict[try TemplateKey(try evaluate(entry.key, scope))] = try evaluate(entry.value, scope)
        }
        return .dict(dict)
    }

    private func evaluateLogic(
        _ operands: [TemplateExpression], stopsAt stop: Bool, _ scope: TemplateScope
    ) throws(TemplateError) -> TemplateValue {
        var value = TemplateValue.none
        for operand in operands {
            value = try evaluate(operand, scope)
            if value.isTrue == stop { break }
        }
        return value
    }

    private func evaluateCompare(
        _ first: TemplateExpression, _ operands: [(op: String, operand: TemplateExpression)],
        _ scope: TemplateScope
    ) throws(TemplateError) -> TemplateValue {
        var left = try evaluate(first, scope)
        for (op, expression) in operands {
            let right = try evaluate(expression, scope)
            guard try TemplateOperators.compare(op, left, right) else { return .bool(false) }
            left = right
        }
        return .bool(true)
    }

    private func evaluateConcat(
        _ parts: [TemplateExpression], _ scope: TemplateScope
    ) throws(TemplateError) -> TemplateValue {
        var text = ""
        for part in parts { text += try PythonText.string(try evaluate(part, scope)) }
        try charge(text.utf8.count)
        return .string(text)
    }

    private func evaluateArithmetic(
        _ first: TemplateExpression, _ operands: [(op: String, operand: TemplateExpression)],
        _ scope: TemplateScope
    ) throws(TemplateError) -> TemplateValue {
        var left = try evaluate(first, scope)
        for (op, expression) in operands {
            let right = try evaluate(expression, scope)
            left = try TemplateOperators(self).arithmetic(op, left, right)
        }
        return left
    }

    private func evaluateSlice(
        _ base: TemplateExpression, _ bounds: [TemplateExpression?], _ scope: TemplateScope
    ) throws(TemplateError) -> TemplateValue {
        let value = try evaluate(base, scope).plain
        var numbers: [Int?] = []
        for bound in bounds {
            guard let bound else {
                numbers.append(nil)
                continue
            }
            let number = try evaluate(bound, scope)
            if case .none = number {
                numbers.append(nil)
            } else if let integer = number.integer {
                numbers.append(integer)
            } else {
                throw .runtime("slice indices must be integers or None")
            }
        }
        return try TemplateOperators(self).slice(value, numbers[0], numbers[1], numbers[2])
    }
}
