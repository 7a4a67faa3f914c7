/// Why a chat template cannot be read or rendered.
public struct TemplateError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Kind: Sendable, Equatable {
        /// The template itself is malformed.
        case syntax
        /// The template called `raise_exception`: its author refuses these messages.
        case raised
        /// The template did what its language does not allow, such as reading a field of nothing.
        case runtime
        /// A bound on time, depth or size was exceeded.
        case limit
    }

    public let kind: Kind
    public let message: String
    /// The template's line, counted from 1, where it is known.
    public let line: Int?

    public init(kind: Kind, message: String, line: Int? = nil) {
        self.kind = kind
        self.message = message
        self.line = line
    }

    public var description: String {
        line.map { "chat template, line \($0): \(message)" } ?? "chat template: \(message)"
    }

    static func syntax(_ message: String, _ line: Int) -> TemplateError {
        TemplateError(kind: .syntax, message: message, line: line)
    }

    static func runtime(_ message: String) -> TemplateError {
        TemplateError(kind: .runtime, message: message)
    }

    static func limit(_ message: String) -> TemplateError {
        TemplateError(kind: .limit, message: message)
    }
}
