/// Builds a template's tree from its tokens, by the grammar of jinja2 with the `loopcontrols`
/// extension and transformers' `generation` tag.
struct TemplateParser {
    static let maximumDepth = 100

    var tokens: [TemplateToken]
    var position = 0
    private var depth = 0
    private var loopDepth = 0
    /// Names read since the innermost macro began, for `varargs`, `kwargs` and `caller`.
    var readNames: Set<String> = []

    init(_ source: String) throws(TemplateError) {
        tokens = try TemplateLexer.tokens(of: source)
    }

    static func parse(_ source: String) throws(TemplateError) -> [TemplateNode] {
        var parser = try TemplateParser(source)
        return try parser.parseBody(until: [])
    }

    // MARK: Tokens

    var current: TemplateToken.Kind { tokens[position].kind }
    var line: Int { tokens[position].line }

    func look(_ offset: Int = 1) -> TemplateToken.Kind {
        position + offset < tokens.count ? tokens[position + offset].kind : .end
    }

    mutating func advance() {
        if position + 1 < tokens.count { position += 1 }
    }

    func isOperator(_ text: String) -> Bool { current == .op(text) }

    func isName(_ text: String) -> Bool { current == .name(text) }

    mutating func skipOperator(_ text: String) -> Bool {
        guard isOperator(text) else { return false }
        advance()
        return true
    }

    mutating func skipName(_ text: String) -> Bool {
        guard isName(text) else { return false }
        advance()
        return true
    }

    mutating func expect(_ kind: TemplateToken.Kind, _ name: String) throws(TemplateError) {
        guard current == kind else { throw unexpected("expected \(name)") }
        advance()
    }

    mutating func expectOperator(_ text: String) throws(TemplateError) {
        try expect(.op(text), "'\(text)'")
    }

    mutating func expectName() throws(TemplateError) -> String {
        guard case .name(let name) = current else { throw unexpected("expected a name") }
        advance()
        return name
    }

    func unexpected(_ what: String) -> TemplateError {
        let found =
            switch current {
            case .end: "the end of the template"
            case .blockEnd: "the end of the statement"
            case .variableEnd: "the end of the print statement"
            case .name(let name): "'\(name)'"
            case .op(let text): "'\(text)'"
            default: "another token"
            }
        return .syntax("\(what), found \(found)", line)
    }

    /// Bounds how deep a template nests, so that a hostile one cannot exhaust the stack.
    mutating func enter() throws(TemplateError) {
        depth += 1
        if depth > Self.maximumDepth {
            throw TemplateError(
                kind: .limit, message: "nested deeper than \(Self.maximumDepth)", line: line)
        }
    }

    mutating func leave() {
        depth -= 1
    }

    // MARK: Statements

    /// Parses up to one of the named tags, which is left with its name as the current token.
    mutating func parseBody(until ends: [String]) throws(TemplateError) -> [TemplateNode] {
        try enter()
        defer { leave() }
        var nodes: [TemplateNode] = []
        while true {
            switch current {
            case .text(let text):
                nodes.append(.text(text))
                advance()
            case .variableBegin:
                let line = line
                advance()
                nodes.append(.output(try parseTuple(), line: line))
                try expect(.variableEnd, "the end of the print statement")
            case .blockBegin:
                advance()
                if case .name(let name) = current, ends.contains(name) { return nodes }
                nodes.append(try parseStatement())
                try expect(.blockEnd, "the end of the statement")
            default:
                if ends.isEmpty, current == .end { return nodes }
                throw unexpected("expected \(ends.joined(separator: " or "))")
            }
        }
    }

    /// Parses a tag's body and its end tag, whose name the position is left behind.
    private mutating func parseBlock(end: String) throws(TemplateError) -> [TemplateNode] {
        try expect(.blockEnd, "the end of the statement")
        let body = try parseBody(until: [end])
        advance()
        return body
    }

    private mutating func parseStatement() throws(TemplateError) -> TemplateNode {
        let line = line
        let name = try expectName()
        switch name {
        case "if": return try parseIf()
        case "for": return try parseFor()
        case "set": return try parseSet()
        case "macro": return .macro(try parseMacro())
        case "call": return try parseCall(line)
        case "filter":
            let filters = try parseFilters(isFirst: true)
            return .filtered(filters, body: try parseBlock(end: "endfilter"))
        case "with": return try parseWith()
        case "generation": return .scoped(try parseBlock(end: "endgeneration"))
        case "break", "continue":
            if loopDepth == 0 { throw .syntax("'\(name)' outside of a loop", line) }
            return name == "break" ? .breakLoop : .continueLoop
        case "print": return .output(try parseTuple(), line: line)
        default: throw .syntax("Encountered unknown tag '\(name)'.", line)
        }
    }

    private mutating func parseIf() throws(TemplateError) -> TemplateNode {
        var branches: [(condition: TemplateExpression, body: [TemplateNode])] = []
        while true {
            let condition = try parseTuple(withCondition: false)
            try expect(.blockEnd, "the end of the statement")
            branches.append((condition, try parseBody(until: ["elif", "else", "endif"])))
            if skipName("elif") { continue }
            var otherwise: [TemplateNode] = []
            if skipName("else") {
                otherwise = try parseBlock(end: "endif")
            } else {
                advance()
            }
            return .conditional(branches, otherwise: otherwise)
        }
    }

    private mutating func parseFor() throws(TemplateError) -> TemplateNode {
        let target = try parseTarget(end: "in")
        guard skipName("in") else { throw unexpected("expected 'in'") }
        let sequence = try parseTuple(withCondition: false, end: "recursive")
        let condition = skipName("if") ? try parseExpression() : nil
        let isRecursive = skipName("recursive")
        try expect(.blockEnd, "the end of the statement")
        loopDepth += 1
        let body = try parseBody(until: ["endfor", "else"])
        loopDepth -= 1
        var otherwise: [TemplateNode] = []
        if skipName("else") {
            otherwise = try parseBlock(end: "endfor")
        } else {
            advance()
        }
        return .loop(
            TemplateLoop(
                target: target, sequence: sequence, condition: condition, isRecursive: isRecursive,
                body: body, otherwise: otherwise))
    }

    private mutating func parseTarget(
        end: String? = nil, allowsAttribute: Bool = false
    ) throws(TemplateError) -> TemplateTarget {
        var targets: [TemplateTarget] = []
        var isTuple = false
        while true {
            if let end, isName(end), !targets.isEmpty { break }
            if skipOperator("(") {
                targets.append(try parseTarget())
                try expectOperator(")")
            } else {
                let name = try expectName()
                if ["true", "false", "none", "True", "False", "None"].contains(name) {
                    throw .syntax("can't assign to '\(name)'", line)
                }
                if allowsAttribute, skipOperator(".") {
                    targets.append(.attribute(of: name, try expectName()))
                } else {
                    targets.append(.name(name))
                }
            }
            guard skipOperator(",") else { break }
            isTuple = true
        }
        return isTuple ? .tuple(targets) : targets[0]
    }

    private mutating func parseSet() throws(TemplateError) -> TemplateNode {
        let target = try parseTarget(allowsAttribute: true)
        if skipOperator("=") { return .assign(target, try parseTuple()) }
        let filters = try parseFilters(isFirst: false)
        return .capture(target, filters: filters, body: try parseBlock(end: "endset"))
    }

    private mutating func parseSignature(
        into macro: inout TemplateMacro
    ) throws(TemplateError) {
        try expectOperator("(")
        while !isOperator(")") {
            if !macro.parameters.isEmpty { try expectOperator(",") }
            macro.parameters.append(try expectName())
            if skipOperator("=") {
                macro.defaults.append(try parseExpression())
            } else if !macro.defaults.isEmpty {
                throw .syntax("non-default argument follows default argument", line)
            }
        }
        advance()
    }

    private mutating func parseMacro() throws(TemplateError) -> TemplateMacro {
        var macro = TemplateMacro(
            name: try expectName(), parameters: [], defaults: [], body: [], specialNames: [])
        try parseSignature(into: &macro)
        try parseMacroBody(&macro, end: "endmacro")
        return macro
    }

    private mutating func parseMacroBody(
        _ macro: inout TemplateMacro, end: String
    ) throws(TemplateError) {
        let outer = readNames
        let outerLoopDepth = loopDepth
        readNames = []
        loopDepth = 0
        macro.body = try parseBlock(end: end)
        macro.specialNames = readNames.intersection(["varargs", "kwargs", "caller"])
        readNames.formUnion(outer)
        loopDepth = outerLoopDepth
    }

    private mutating func parseCall(_ line: Int) throws(TemplateError) -> TemplateNode {
        var caller = TemplateMacro(
            name: "caller", parameters: [], defaults: [], body: [], specialNames: [])
        if isOperator("(") { try parseSignature(into: &caller) }
        let call = try parseExpression()
        guard case .call = call else { throw .syntax("expected call", line) }
        try parseMacroBody(&caller, end: "endcall")
        return .callBlock(caller, call: call, line: line)
    }

    private mutating func parseWith() throws(TemplateError) -> TemplateNode {
        var bindings: [(TemplateTarget, TemplateExpression)] = []
        while current != .blockEnd {
            if !bindings.isEmpty { try expectOperator(",") }
            let target = TemplateTarget.name(try expectName())
            try expectOperator("=")
            bindings.append((target, try parseExpression()))
        }
        return .with(bindings, body: try parseBlock(end: "endwith"))
    }
}
