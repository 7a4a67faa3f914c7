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

/// What a text may have of tokens, before it is tokenized: English has some four bytes in each.
func estimatedTokenCount(ofBytes count: Int) -> Int { (count + 3) / 4 }

extension Conversation {
    var estimatedTokenCount: Int {
        messages.reduce(0) { sum, message in
            // The template puts some tokens around each message.
            sum + 4 + LorryAPI.estimatedTokenCount(ofBytes: message.content?.utf8.count ?? 0)
        }
    }
}
