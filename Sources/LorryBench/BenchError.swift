/// Why a measurement could not be made: the message names the flag or folder at fault.
public struct BenchError: Error, CustomStringConvertible, Sendable, Equatable {
    public let description: String
    public init(_ description: String) { self.description = description }

    static let endedEarly = BenchError("a sequence ended before all decoded together")
}
