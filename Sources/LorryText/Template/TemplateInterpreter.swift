import Foundation
import OrderedCollections

/// Runs one rendering of a template.
final class TemplateInterpreter {
    enum Flow {
        case normal, breakLoop, continueLoop
    }

    /// Arguments of a call, evaluated.
    struct Arguments {
        var positional: [TemplateValue] = []
        var named: OrderedDictionary<String, TemplateValue> = [:]
    }

    let limits: ChatTemplate.Limits
    let now: Date
    private var steps = 0
    var depth = 0
    /// What may hold itself, or one another in long chains: macros are held by the scopes that they
    /// hold. In the order in which they came.
    private var scopesOfMacros: [TemplateScope] = []
    private var namespaces: [TemplateNamespace] = []
    private var changedLoops: [LoopValue] = []

    init(limits: ChatTemplate.Limits, now: Date) {
        self.limits = limits
        self.now = now
    }

    func render(_ nodes: [TemplateNode], _ scope: TemplateScope) throws(TemplateError) -> String {
        defer { takeApart() }
        var output = ""
        _ = try run(nodes, scope, &output)
        return output
    }

    // MARK: Circles

    /// Each costs memory until the rendering is over.
    private static let keptSize = 64 * 64

    func makeNamespace(
        _ attributes: OrderedDictionary<TemplateKey, TemplateValue>
    ) throws(TemplateError) -> TemplateValue {
        try charge(Self.keptSize)
        let namespace = TemplateNamespace(attributes)
        namespaces.append(namespace)
        return .namespace(namespace)
    }

    private func defineMacro(
        _ macro: TemplateMacro, _ scope: TemplateScope
    ) throws(TemplateError) {
        try charge(Self.keptSize)
        scopesOfMacros.append(scope)
        scope.variables[macro.name] = .macro(MacroValue(macro, scope: scope))
    }

    func noteChange(of loop: LoopValue, _ values: [TemplateValue]) {
        if loop.lastChanged == nil { changedLoops.append(loop) }
        loop.lastChanged = values
    }

    /// - Throws: where values lie in each other too deep to be freed, which goes one call deeper for
    ///   each.
    private func checkNesting(_ value: TemplateValue) throws(TemplateError) {
        var visitCount = 0
        let isTooDeep = value.isNested(deeperThan: limits.depth, &visitCount)
        try charge(visitCount * 8)
        if isTooDeep { throw .limit("a value nests deeper than \(limits.depth)") }
    }

    /// Oldest first, so that no chain of them goes at once.
    private func takeApart() {
        for loop in changedLoops { loop.lastChanged = nil }
        for namespace in namespaces { namespace.attributes = [:] }
        for scope in scopesOfMacros { scope.variables = [:] }
    }

    // MARK: Bounds

    /// Counts work; creating `size` bytes or elements is work too.
    func charge(_ size: Int = 0) throws(TemplateError) {
        steps += 1 + size / 64
        if steps > limits.steps { throw .limit("rendering takes more than \(limits.steps) steps") }
        if size > limits.outputByteCount {
            throw .limit("rendering makes a text of more than \(limits.outputByteCount) bytes")
        }
    }

    func enter() throws(TemplateError) {
        depth += 1
        if depth > limits.depth {
            depth -= 1
            throw .limit("rendering nests deeper than \(limits.depth)")
        }
    }

    private func append(_ text: String, to output: inout String) throws(TemplateError) {
        try charge(text.utf8.count)
        output += text
        if output.utf8.count > limits.outputByteCount {
            throw .limit("rendering makes a text of more than \(limits.outputByteCount) bytes")
        }
    }

    // MARK: Statements

    func run(
        _ nodes: [TemplateNode], _ scope: TemplateScope, _ output: inout String
    ) throws(TemplateError) -> Flow {
        try enter()
        defer { depth -= 1 }
        for node in nodes {
            try charge()
            let flow = try run(node, scope, &output)
            if flow != .normal { return flow }
        }
        return .normal
    }

    private func run(
        _ node: TemplateNode, _ scope: TemplateScope, _ output: inout String
    ) throws(TemplateError) -> Flow {
        switch node {
        case .text(let text):
            try append(text, to: &output)
        case .output(let expression, let line):
            try runOutput(expression, line, scope, &output)
        case .conditional(let branches, let otherwise):
            for branch in branches where try evaluate(branch.condition, scope).isTrue {
                return try run(branch.body, scope, &output)
            }
            return try run(otherwise, scope, &output)
        case .loop(let loop):
            try runLoop(loop, scope, &output)
        case .assign(let target, let expression):
            try assign(try evaluate(expression, scope), to: target, scope)
        case .capture(let target, let filters, let body):
            let text = try capture(body, TemplateScope(parent: scope))
            try assign(try apply(filters, to: .string(text), scope), to: target, scope)
        case .macro(let macro):
            try defineMacro(macro, scope)
        case .callBlock(let caller, let call, let line):
            try runCallBlock(caller, call, line, scope, &output)
        case .filtered(let filters, let body):
            let text = try capture(body, TemplateScope(parent: scope))
            let value = try apply(filters, to: .string(text), scope)
            try append(try PythonText.string(value), to: &output)
        case .with(let bindings, let body):
            let inner = TemplateScope(parent: scope)
            for (target, expression) in bindings {
                try assign(try evaluate(expression, scope), to: target, inner)
            }
            return try run(body, inner, &output)
        case .scoped(let body):
            return try run(body, TemplateScope(parent: scope), &output)
        case .breakLoop: return .breakLoop
        case .continueLoop: return .continueLoop
        }
        return .normal
    }

    private func runOutput(
        _ expression: TemplateExpression, _ line: Int, _ scope: TemplateScope,
        _ output: inout String
    ) throws(TemplateError) {
        do throws(TemplateError) {
            try append(try PythonText.string(try evaluate(expression, scope)), to: &output)
        } catch {
            throw TemplateError(
                kind: error.kind, message: error.message, line: error.line ?? line)
        }
    }

    private func capture(
        _ body: [TemplateNode], _ scope: TemplateScope
    ) throws(TemplateError) -> String {
        var text = ""
        _ = try run(body, scope, &text)
        return text
    }

    func apply(
        _ filters: [TemplateFilter], to value: TemplateValue, _ scope: TemplateScope
    ) throws(TemplateError) -> TemplateValue {
        var value = value
        for filter in filters {
            let arguments = try evaluate(filter.arguments, scope)
            value = try TemplateFilters(self).apply(filter.name, value, arguments)
        }
        return value
    }

    func assign(
        _ value: TemplateValue, to target: TemplateTarget, _ scope: TemplateScope
    ) throws(TemplateError) {
        switch target {
        case .name(let name):
            scope.variables[name] = value
        case .attribute(let name, let attribute):
            guard case .namespace(let space)? = scope.lookup(name) else {
                throw .runtime("cannot assign attribute on non-namespace object")
            }
            // Only so can a value grow deeper from one pass of a loop to the next.
            try checkNesting(value)
            space.attributes[.string(attribute)] = value
        case .tuple(let targets):
            let elements = try value.elements()
            guard elements.count == targets.count else {
                throw .runtime(
                    "expected \(targets.count) values to unpack, got \(elements.count)")
            }
            for (element, target) in zip(elements, targets) {
                try assign(element, to: target, scope)
            }
        }
    }

    private func runLoop(
        _ loop: TemplateLoop, _ scope: TemplateScope, _ output: inout String
    ) throws(TemplateError) {
        let sequence = try evaluate(loop.sequence, scope)
        try runLoop(loop, over: sequence, depth: 0, scope, &output)
    }

    func runLoop(
        _ loop: TemplateLoop, over sequence: TemplateValue, depth: Int, _ scope: TemplateScope,
        _ output: inout String
    ) throws(TemplateError) {
        var items = try sequence.elements()
        try charge(items.count * 8)
        if let condition = loop.condition {
            var kept: [TemplateValue] = []
            for item in items {
                try charge()
                let inner = TemplateScope(parent: scope)
                try assign(item, to: loop.target, inner)
                if try evaluate(condition, inner).isTrue { kept.append(item) }
            }
            items = kept
        }
        let state = LoopValue(
            items, depth: depth, recursion: loop.isRecursive ? (loop, scope) : nil)
        for (index, item) in items.enumerated() {
            try charge()
            state.index = index
            let inner = TemplateScope(parent: scope)
            inner.variables["loop"] = .loop(state)
            try assign(item, to: loop.target, inner)
            if try run(loop.body, inner, &output) == .breakLoop { break }
        }
        if items.isEmpty {
            _ = try run(loop.otherwise, TemplateScope(parent: scope), &output)
        }
    }

    private func runCallBlock(
        _ caller: TemplateMacro, _ call: TemplateExpression, _ line: Int, _ scope: TemplateScope,
        _ output: inout String
    ) throws(TemplateError) {
        guard case .call(let callee, let arguments, _) = call else { return }
        var values = try evaluate(arguments, scope)
        values.named["caller"] = .macro(MacroValue(caller, scope: scope))
        let result = try self.call(try evaluate(callee, scope), values, line: line)
        try append(try PythonText.string(result), to: &output)
    }

    // MARK: Macros

    func call(_ value: MacroValue, _ arguments: Arguments) throws(TemplateError) -> TemplateValue {
        let macro = value.macro
        let inner = TemplateScope(parent: value.scope)
        var named = arguments.named
        let caller = named.removeValue(forKey: "caller")
        if let caller {
            guard macro.specialNames.contains("caller") || macro.parameters.contains("caller")
            else {
                throw .runtime("macro '\(macro.name)' takes no keyword argument 'caller'")
            }
            inner.variables["caller"] = caller
        } else if macro.specialNames.contains("caller") {
            inner.variables["caller"] = .undefined("No caller defined")
        }
        let firstDefault = macro.parameters.count - macro.defaults.count
        for (index, parameter) in macro.parameters.enumerated() {
            if index < arguments.positional.count {
                if named[parameter] != nil {
                    throw .runtime(
                        "macro '\(macro.name)' got multiple values for argument '\(parameter)'")
                }
                inner.variables[parameter] = arguments.positional[index]
            } else if let given = named.removeValue(forKey: parameter) {
                inner.variables[parameter] = given
            } else if index >= firstDefault {
                inner.variables[parameter] = try evaluate(
                    macro.defaults[index - firstDefault], inner)
            } else if inner.variables[parameter] == nil {
                inner.variables[parameter] = .undefined(
                    "parameter '\(parameter)' was not provided")
            }
        }
        try bindRest(macro, arguments, named, inner)
        var output = ""
        _ = try run(macro.body, inner, &output)
        return .string(output)
    }

    private func bindRest(
        _ macro: TemplateMacro, _ arguments: Arguments,
        _ named: OrderedDictionary<String, TemplateValue>, _ scope: TemplateScope
    ) throws(TemplateError) {
        let extra = Array(arguments.positional.dropFirst(macro.parameters.count))
        if macro.specialNames.contains("varargs") {
            scope.variables["varargs"] = .tuple(extra)
        } else if !extra.isEmpty {
            throw .runtime(
                "macro '\(macro.name)' takes not more than \(macro.parameters.count) argument(s)")
        }
        if macro.specialNames.contains("kwargs") {
            var rest: OrderedDictionary<TemplateKey, TemplateValue> = [:]
            for (name, value) in named { rest[.string(name)] = value }
            scope.variables["kwargs"] = .dict(rest)
        } else if let name = named.keys.first {
            throw .runtime("macro '\(macro.name)' takes no keyword argument '\(name)'")
        }
    }
}
