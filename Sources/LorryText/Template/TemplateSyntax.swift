/// Statements and expressions of a template.
indirect enum TemplateNode: Sendable {
    case text(String)
    case output(TemplateExpression, line: Int)
    case conditional(
        [(condition: TemplateExpression, body: [TemplateNode])], otherwise: [TemplateNode])
    case loop(TemplateLoop)
    case assign(TemplateTarget, TemplateExpression)
    case capture(TemplateTarget, filters: [TemplateFilter], body: [TemplateNode])
    case macro(TemplateMacro)
    case callBlock(TemplateMacro, call: TemplateExpression, line: Int)
    case filtered([TemplateFilter], body: [TemplateNode])
    case with([(TemplateTarget, TemplateExpression)], body: [TemplateNode])
    /// A body with variables of its own.
    case scoped([TemplateNode])
    case breakLoop
    case continueLoop
}

struct TemplateLoop: Sendable {
    var target: TemplateTarget
    var sequence: TemplateExpression
    var condition: TemplateExpression?
    var isRecursive: Bool
    var body: [TemplateNode]
    var otherwise: [TemplateNode]
}

struct TemplateMacro: Sendable {
    var name: String
    var parameters: [String]
    /// Defaults of the last parameters.
    var defaults: [TemplateExpression]
    var body: [TemplateNode]
    /// Which of the names `varargs`, `kwargs` and `caller` the body reads.
    var specialNames: Set<String>
}

indirect enum TemplateTarget: Sendable {
    case name(String)
    case attribute(of: String, String)
    case tuple([TemplateTarget])
}

struct TemplateFilter: Sendable {
    var name: String
    var arguments: TemplateArguments
    var line: Int
}

struct TemplateArguments: Sendable {
    var positional: [TemplateExpression] = []
    var named: [(name: String, value: TemplateExpression)] = []
    var spread: TemplateExpression?
    var namedSpread: TemplateExpression?
}

indirect enum TemplateExpression: Sendable {
    case constant(JSONValue)
    case name(String)
    case list([TemplateExpression])
    case tuple([TemplateExpression])
    case dict([(key: TemplateExpression, value: TemplateExpression)])
    case attribute(TemplateExpression, String)
    case subscripted(TemplateExpression, TemplateExpression)
    case slice(
        TemplateExpression, start: TemplateExpression?, stop: TemplateExpression?,
        step: TemplateExpression?)
    case call(TemplateExpression, TemplateArguments, line: Int)
    case filter(TemplateExpression, TemplateFilter)
    case test(TemplateExpression, name: String, TemplateArguments)
    case not(TemplateExpression)
    case and([TemplateExpression])
    case or([TemplateExpression])
    case conditional(
        TemplateExpression, condition: TemplateExpression, otherwise: TemplateExpression?)
    case compare(TemplateExpression, [(op: String, operand: TemplateExpression)])
    case concat([TemplateExpression])
    /// Operators of one precedence, from left to right: a long chain does not nest.
    case arithmetic(TemplateExpression, [(op: String, operand: TemplateExpression)])
    case negative(TemplateExpression)
    case positive(TemplateExpression)
}
