/// Why nothing was written; the message names the argument, file or field.
public struct SynthError: Error, CustomStringConvertible {
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Called with the bytes written so far and in all.
public typealias SynthProgress = @Sendable (_ writtenByteCount: Int, _ totalByteCount: Int) -> Void
