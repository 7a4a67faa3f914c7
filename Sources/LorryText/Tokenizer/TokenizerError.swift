/// Why a tokenizer or its configuration cannot be used.
public struct TokenizerError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Kind: Sendable, Equatable {
        /// The file is absent or cannot be read.
        case unreadable
        /// The file contradicts the format.
        case invalid
        /// The file asks for something that is not supported; the message names it.
        case unsupported
    }

    public let kind: Kind
    public let message: String

    public var description: String { message }

    static func invalid(_ message: String) -> TokenizerError {
        TokenizerError(kind: .invalid, message: message)
    }

    static func unsupported(_ message: String) -> TokenizerError {
        TokenizerError(kind: .unsupported, message: message)
    }
}
