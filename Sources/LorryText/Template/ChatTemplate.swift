import Foundation
import OrderedCollections

/// A model's chat template: Jinja as transformers sets it up (sandboxed, `trim_blocks`,
/// `lstrip_blocks`, loop controls, `tojson`, `raise_exception`, `strftime_now`).
public struct ChatTemplate: Sendable {
    /// Bounds on what one rendering may do, whatever the template says.
    public struct Limits: Sendable {
        /// Evaluated expressions and statements, plus a share of the bytes and elements that they
        /// create.
        public var steps = 5_000_000
        /// Bytes of the rendered text, and of any string on the way.
        public var outputByteCount = 32 << 20
        /// Nesting of macro calls, loops and expressions together.
        public var depth = 400

        public init() {}
    }

    public let source: String
    private let nodes: [TemplateNode]

    /// - Throws: `TokenizerError` with the line and what is wrong there.
    public init(source: String) throws(TokenizerError) {
        self.source = source
        do {
            nodes = try TemplateParser.parse(source)
        } catch {
            throw .invalid(error.description)
        }
    }

    /// Renders the template.
    /// - Parameters:
    ///   - context: variables by name: `messages`, `tools`, `add_generation_prompt`, `bos_token`, …
    ///   - now: the time that `strftime_now` tells
    /// - Throws: `TemplateError`; of kind `raised` when the template refuses its input.
    public func render(
        _ context: [String: JSONValue], now: Date = Date(), limits: Limits = Limits()
    ) throws(TemplateError) -> String {
        let interpreter = TemplateInterpreter(limits: limits, now: now)
        let scope = TemplateScope(parent: nil)
        for (name, value) in context { scope.variables[name] = TemplateValue(value) }
        return try interpreter.render(nodes, scope)
    }

    /// Renders with the members of an object as variables.
    public func render(
        _ context: JSONValue, now: Date = Date(), limits: Limits = Limits()
    ) throws(TemplateError) -> String {
        guard case .object(let members) = context else {
            throw .runtime("the context is not an object")
        }
        return try render(
            Dictionary(members.map { ($0.key, $0.value) }) { $1 }, now: now, limits: limits)
    }
}

/// What chat templates are given, as JSON that keeps the order of keys.
public typealias JinjaValue = JSONValue

extension JSONValue {
    /// Parses a whole JSON text.
    /// - Throws: `JSONError` naming the byte.
    public init(json: Data) throws(JSONError) {
        try self.init(parsing: json)
    }
}
