/// The tests behind `is`.
enum TemplateTests {
    static let names: Set<String> = [
        "boolean", "callable", "defined", "divisibleby", "eq", "equalto", "escaped", "even",
        "false",
        "filter", "float", "ge", "greaterthan", "gt", "in", "integer", "iterable", "le", "lessthan",
        "lower", "lt", "mapping", "ne", "none", "number", "odd", "sameas", "sequence", "string",
        "test", "true", "undefined", "upper",
    ]

    private static let operators = [
        "eq": "==", "equalto": "==", "ne": "!=", "lt": "<", "lessthan": "<", "le": "<=", "gt": ">",
        "greaterthan": ">", "ge": ">=",
    ]

    static func apply(
        _ name: String, _ value: TemplateValue, _ arguments: TemplateInterpreter.Arguments
    ) throws(TemplateError) -> Bool {
        if let op = operators[name] {
            return try TemplateOperators.compare(op, value, try operand(name, arguments))
        }
        switch name {
        case "defined": return !value.isUndefined
        case "undefined": return value.isUndefined
        case "none":
            if case .none = value { return true }
        case "boolean":
            if case .bool = value { return true }
        case "true":
            if case .bool(true) = value { return true }
        case "false":
            if case .bool(false) = value { return true }
        case "integer":
            if case .int = value { return true }
        case "float":
            if case .double = value { return true }
        case "number": return value.number != nil
        case "string":
            if case .string = value { return true }
        case "mapping":
            if case .dict = value { return true }
        case "iterable": return isIterable(value)
        case "sequence": return isSequence(value)
        case "callable": return isCallable(value)
        case "odd", "even", "divisibleby": return try divides(name, value, arguments)
        case "in": return try operand(name, arguments).contains(value)
        case "sameas": return isSame(value, try operand(name, arguments))
        case "lower", "upper": return isCased(name, try PythonText.string(value))
        case "filter":
            if case .string(let other) = value { return TemplateFilters.names.contains(other) }
        case "test":
            if case .string(let other) = value { return names.contains(other) }
        default: break
        }
        return false
    }

    private static func operand(
        _ name: String, _ arguments: TemplateInterpreter.Arguments
    ) throws(TemplateError) -> TemplateValue {
        guard let operand = arguments.positional.first else {
            throw .runtime("the test '\(name)' needs an argument")
        }
        return operand
    }

    private static func isIterable(_ value: TemplateValue) -> Bool {
        switch value {
        case .undefined, .string, .list, .tuple, .dict, .lazy, .loop: true
        default: false
        }
    }

    /// Whatever has a length and can be subscripted.
    private static func isSequence(_ value: TemplateValue) -> Bool {
        switch value {
        case .string, .list, .tuple, .dict, .lazy(.range, _): true
        default: false
        }
    }

    private static func isCallable(_ value: TemplateValue) -> Bool {
        switch value {
        case .undefined, .macro, .function, .method, .loop: true
        case .cycler(let cycler): cycler.isJoiner
        default: false
        }
    }

    private static func divides(
        _ name: String, _ value: TemplateValue, _ arguments: TemplateInterpreter.Arguments
    ) throws(TemplateError) -> Bool {
        var divisor = 2
        if name == "divisibleby" {
            guard let number = try operand(name, arguments).integer, number != 0 else {
                throw .runtime("integer modulo by zero")
            }
            divisor = number
        }
        if let integer = value.integer {
            let isMultiple = divisor == -1 || integer % divisor == 0
            return name == "odd" ? !isMultiple : isMultiple
        }
        guard case .double(let double) = value else {
            throw .runtime("unsupported operand type(s) for %: '\(value.typeName)' and 'int'")
        }
        let remainder = double.truncatingRemainder(dividingBy: Double(divisor))
        return name == "odd" ? abs(remainder) == 1 : remainder == 0
    }

    private static func isSame(_ left: TemplateValue, _ right: TemplateValue) -> Bool {
        switch (left, right) {
        case (.none, .none): true
        case (.bool(let first), .bool(let second)): first == second
        case (.int(let first), .int(let second)): first == second
        case (.string, .string), (.namespace, .namespace), (.macro, .macro): left.equals(right)
        default: false
        }
    }

    private static func isCased(_ name: String, _ text: String) -> Bool {
        let hasCase = text.unicodeScalars.contains { $0.properties.isCased }
        return hasCase
            && text.utf8.elementsEqual(
                (name == "lower" ? text.lowercased() : text.uppercased()).utf8)
    }
}
