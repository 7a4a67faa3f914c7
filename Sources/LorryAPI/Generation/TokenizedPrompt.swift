import Dispatch
import LorryText

/// A prompt as the engine takes it, and as `echo` shows it.
struct TokenizedPrompt: Sendable, Equatable {
    let text: String
    let tokens: [Int32]
}

/// Runs long work on a thread of Dispatch's, so that it holds none of the few threads that run
/// every request.
func onDispatch<Result: Sendable>(_ work: @escaping @Sendable () -> Result) async -> Result {
    await withCheckedContinuation { continuation in
        DispatchQueue.global().async { continuation.resume(returning: work()) }
    }
}

extension TextCodec {
    /// Texts from this size on are tokenized on a thread of their own.
    private static let longTextByteCount = 16 << 10

    func tokens(of text: String, addingSpecialTokens: Bool) async -> [Int32] {
        guard text.utf8.count >= Self.longTextByteCount else {
            return tokenizer.encode(text, addSpecialTokens: addingSpecialTokens)
        }
        return await onDispatch { tokenizer.encode(text, addSpecialTokens: addingSpecialTokens) }
    }
}
