extension TemplateParser {
    mutating func parseExpression(
        withCondition: Bool = true
    ) throws(TemplateError) -> TemplateExpression {
        try enter()
        defer { leave() }
        var expression = try parseOr()
        guard withCondition else { return expression }
        var length = 0
        defer { for _ in 0..<length { leave() } }
        while skipName("if") {
            length += 1
            try enter()
            let condition = try parseOr()
            let otherwise = skipName("else") ? try parseExpression() : nil
            expression = .conditional(expression, condition: condition, otherwise: otherwise)
        }
        return expression
    }

    /// Parses expressions separated by commas: one alone is itself, several are a tuple.
    mutating func parseTuple(
        withCondition: Bool = true, end: String? = nil, inParentheses: Bool = false
    ) throws(TemplateError) -> TemplateExpression {
        var elements: [TemplateExpression] = []
        var isTuple = false
        while true {
            if !elements.isEmpty { try expectOperator(",") }
            if isTupleEnd(end) { break }
            elements.append(try parseExpression(withCondition: withCondition))
            guard isOperator(",") else { break }
            isTuple = true
        }
        if !isTuple {
            if let only = elements.first { return only }
            if !inParentheses { throw unexpected("Expected an expression") }
        }
        return .tuple(elements)
    }

    private func isTupleEnd(_ end: String?) -> Bool {
        switch current {
        case .variableEnd, .blockEnd, .end: true
        case .op(")"): true
        case .name(let name): name == end
        default: false
        }
    }

    private mutating func parseOr() throws(TemplateError) -> TemplateExpression {
        let first = try parseAnd()
        var operands = [first]
        while skipName("or") { operands.append(try parseAnd()) }
        return operands.count == 1 ? first : .or(operands)
    }

    private mutating func parseAnd() throws(TemplateError) -> TemplateExpression {
        let first = try parseNot()
        var operands = [first]
        while skipName("and") { operands.append(try parseNot()) }
        return operands.count == 1 ? first : .and(operands)
    }

    private mutating func parseNot() throws(TemplateError) -> TemplateExpression {
        if skipName("not") {
            try enter()
            defer { leave() }
            return .not(try parseNot())
        }
        return try parseCompare()
    }

    private mutating func parseCompare() throws(TemplateError) -> TemplateExpression {
        let left = try parseSum()
        var operands: [(op: String, operand: TemplateExpression)] = []
        while true {
            if case .op(let op) = current, ["==", "!=", "<", "<=", ">", ">="].contains(op) {
                advance()
                operands.append((op, try parseSum()))
            } else if skipName("in") {
                operands.append(("in", try parseSum()))
            } else if isName("not"), look() == .name("in") {
                advance()
                advance()
                operands.append(("not in", try parseSum()))
            } else {
                return operands.isEmpty ? left : .compare(left, operands)
            }
        }
    }

    private mutating func parseSum() throws(TemplateError) -> TemplateExpression {
        let first = try parseConcat()
        var operands: [(op: String, operand: TemplateExpression)] = []
        while case .op(let op) = current, op == "+" || op == "-" {
            advance()
            operands.append((op, try parseConcat()))
        }
        return operands.isEmpty ? first : .arithmetic(first, operands)
    }

    private mutating func parseConcat() throws(TemplateError) -> TemplateExpression {
        let first = try parseProduct()
        var parts = [first]
        while skipOperator("~") { parts.append(try parseProduct()) }
        return parts.count == 1 ? first : .concat(parts)
    }

    private mutating func parseProduct() throws(TemplateError) -> TemplateExpression {
        let first = try parsePower()
        var operands: [(op: String, operand: TemplateExpression)] = []
        while case .op(let op) = current, ["*", "/", "//", "%"].contains(op) {
            advance()
            operands.append((op, try parsePower()))
        }
        return operands.isEmpty ? first : .arithmetic(first, operands)
    }

    private mutating func parsePower() throws(TemplateError) -> TemplateExpression {
        let first = try parseUnary(withFilters: true)
        var operands: [(op: String, operand: TemplateExpression)] = []
        while skipOperator("**") { operands.append(("**", try parseUnary(withFilters: true))) }
        return operands.isEmpty ? first : .arithmetic(first, operands)
    }

    private mutating func parseUnary(withFilters: Bool) throws(TemplateError) -> TemplateExpression
    {
        try enter()
        defer { leave() }
        var expression: TemplateExpression
        if skipOperator("-") {
            expression = .negative(try parseUnary(withFilters: false))
        } else if skipOperator("+") {
            expression = .positive(try parseUnary(withFilters: false))
        } else {
            expression = try parsePrimary()
        }
        expression = try parsePostfix(expression)
        return withFilters ? try parseFilterChain(expression) : expression
    }

    private mutating func parsePrimary() throws(TemplateError) -> TemplateExpression {
        let kind = current
        switch kind {
        case .name(let name):
            advance()
            switch name {
            case "true", "True": return .constant(.bool(true))
            case "false", "False": return .constant(.bool(false))
            case "none", "None": return .constant(.null)
            default:
                readNames.insert(name)
                return .name(name)
            }
        case .string(var text):
            advance()
            while case .string(let more) = current {
                text += more
                advance()
            }
            return .constant(.string(text))
        case .integer(let value):
            advance()
            return .constant(.integer(value))
        case .float(let value):
            advance()
            return .constant(.double(value))
        case .op("("):
            advance()
            let inner = try parseTuple(inParentheses: true)
            try expectOperator(")")
            return inner
        case .op("["): return try parseList()
        case .op("{"): return try parseDict()
        default: throw unexpected("expected an expression")
        }
    }

    private mutating func parseList() throws(TemplateError) -> TemplateExpression {
        advance()
        var elements: [TemplateExpression] = []
        while !isOperator("]") {
            if !elements.isEmpty { try expectOperator(",") }
            if isOperator("]") { break }
            elements.append(try parseExpression())
        }
        advance()
        return .list(elements)
    }

    private mutating func parseDict() throws(TemplateError) -> TemplateExpression {
        advance()
        var entries: [(key: TemplateExpression, value: TemplateExpression)] = []
        while !isOperator("}") {
            if !entries.isEmpty { try expectOperator(",") }
            if isOperator("}") { break }
            let key = try parseExpression()
            try expectOperator(":")
            entries.append((key, try parseExpression()))
        }
        advance()
        return .dict(entries)
    }

    private mutating func parsePostfix(
        _ start: TemplateExpression
    ) throws(TemplateError) -> TemplateExpression {
        var expression = start
        // A chain nests as deep as it is long once it is evaluated.
        var length = 0
        defer { for _ in 0..<length { leave() } }
        while true {
            switch current {
            case .op("."):
                advance()
                if case .integer(let index) = current {
                    advance()
                    expression = .subscripted(expression, .constant(.integer(index)))
                } else {
                    expression = .attribute(expression, try expectName())
                }
            case .op("["):
                expression = try parseSubscript(expression)
            case .op("("):
                let line = line
                expression = .call(expression, try parseArguments(), line: line)
            default:
                return expression
            }
            length += 1
            try enter()
        }
    }

    private mutating func parseFilterChain(
        _ start: TemplateExpression
    ) throws(TemplateError) -> TemplateExpression {
        var expression = start
        var length = 0
        defer { for _ in 0..<length { leave() } }
        while true {
            if isOperator("|") {
                advance()
                expression = .filter(expression, try parseFilter())
            } else if skipName("is") {
                expression = try parseTest(expression)
            } else if isOperator("(") {
                let line = line
                expression = .call(expression, try parseArguments(), line: line)
            } else {
                return expression
            }
            length += 1
            try enter()
        }
    }

    private mutating func parseSubscript(
        _ base: TemplateExpression
    ) throws(TemplateError) -> TemplateExpression {
        advance()
        var parts: [TemplateExpression] = []
        var isTuple = false
        var isSlice = false
        var bounds: [TemplateExpression?] = []
        while !isOperator("]") {
            if isOperator(":") || isSlice {
                isSlice = true
                if skipOperator(":") {
                    if bounds.isEmpty { bounds.append(nil) }
                    let isEmpty = isOperator(":") || isOperator("]")
                    bounds.append(isEmpty ? nil : try parseExpression())
                } else {
                    throw unexpected("expected ']'")
                }
            } else {
                let part = try parseExpression()
                if isOperator(":") {
                    bounds.append(part)
                    isSlice = true
                } else {
                    parts.append(part)
                    if skipOperator(",") {
                        isTuple = true
                    } else if !isOperator("]") {
                        throw unexpected("expected ']'")
                    }
                }
            }
        }
        advance()
        if isSlice {
            guard parts.isEmpty, bounds.count <= 3 else { throw unexpected("a bad slice") }
            return .slice(
                base, start: bounds[0], stop: bounds.count > 1 ? bounds[1] : nil,
                step: bounds.count > 2 ? bounds[2] : nil)
        }
        guard let first = parts.first else { throw unexpected("expected a subscript") }
        return .subscripted(base, isTuple ? .tuple(parts) : first)
    }

    mutating func parseArguments() throws(TemplateError) -> TemplateArguments {
        try expectOperator("(")
        var arguments = TemplateArguments()
        var needsComma = false
        while !isOperator(")") {
            if needsComma {
                try expectOperator(",")
                if isOperator(")") { break }
            }
            needsComma = true
            if skipOperator("*") {
                guard arguments.spread == nil, arguments.namedSpread == nil else { throw badCall() }
                arguments.spread = try parseExpression()
            } else if skipOperator("**") {
                guard arguments.namedSpread == nil else { throw badCall() }
                arguments.namedSpread = try parseExpression()
            } else if case .name(let name) = current, look() == .op("=") {
                guard arguments.namedSpread == nil else { throw badCall() }
                advance()
                advance()
                arguments.named.append((name, try parseExpression()))
            } else {
                guard arguments.named.isEmpty, arguments.spread == nil,
                    arguments.namedSpread == nil
                else { throw badCall() }
                arguments.positional.append(try parseExpression())
            }
        }
        advance()
        return arguments
    }

    private func badCall() -> TemplateError {
        .syntax("invalid syntax for function call expression", line)
    }

    /// Parses a filter's name and arguments behind its bar.
    mutating func parseFilter() throws(TemplateError) -> TemplateFilter {
        let line = line
        var name = try expectName()
        while skipOperator(".") { name += "." + (try expectName()) }
        guard TemplateFilters.names.contains(name) else {
            throw .syntax("No filter named '\(name)'.", line)
        }
        let arguments = isOperator("(") ? try parseArguments() : TemplateArguments()
        return TemplateFilter(name: name, arguments: arguments, line: line)
    }

    /// Parses `a|b|c`; the first one's bar is absent when `isFirst` is set.
    mutating func parseFilters(isFirst: Bool) throws(TemplateError) -> [TemplateFilter] {
        var filters: [TemplateFilter] = []
        if isFirst { filters.append(try parseFilter()) }
        while skipOperator("|") { filters.append(try parseFilter()) }
        return filters
    }

    private mutating func parseTest(
        _ value: TemplateExpression
    ) throws(TemplateError) -> TemplateExpression {
        let isNegated = skipName("not")
        let line = line
        var name = try expectName()
        while skipOperator(".") { name += "." + (try expectName()) }
        guard TemplateTests.names.contains(name) else {
            throw .syntax("No test named '\(name)'.", line)
        }
        var arguments = TemplateArguments()
        switch current {
        case .op("("):
            arguments = try parseArguments()
        case .name("else"), .name("or"), .name("and"):
            break
        case .name("is"):
            throw .syntax("You cannot chain multiple tests with is", line)
        case .name, .string, .integer, .float, .op("["), .op("{"):
            arguments.positional = [try parsePostfix(try parsePrimary())]
        default:
            break
        }
        let test = TemplateExpression.test(value, name: name, arguments)
        return isNegated ? .not(test) : test
    }
}
