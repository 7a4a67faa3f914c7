/// A setting that cannot be used; the message names it, where it came from, and what it may be.
public struct ConfigurationError: Error, CustomStringConvertible, Equatable {
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}
