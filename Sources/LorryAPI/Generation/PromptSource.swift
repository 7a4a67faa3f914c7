import LorryText

/// What a request gives as a prompt, before it is tokenized.
enum PromptSource: Sendable {
    case text(String)
    case tokens([Int32])
    /// llama.cpp's mixture of texts and token ids.
    case mixed([Part])
    case conversation(Conversation)

    enum Part: Sendable, Equatable {
        case text(String)
        case token(Int32)
    }

    /// What it may have of tokens, told without tokenizing.
    var estimatedTokenCount: Int {
        switch self {
        case .text(let text): LorryAPI.estimatedTokenCount(ofBytes: text.utf8.count)
        case .tokens(let ids): ids.count
        case .mixed(let parts):
            parts.reduce(0) { sum, part in
                switch part {
                case .text(let text):
                    sum + LorryAPI.estimatedTokenCount(ofBytes: text.utf8.count)
                case .token: sum + 1
                }
            }
        case .conversation(let conversation): conversation.estimatedTokenCount
        }
    }

    /// How a text becomes tokens, and tokens a text.
    struct Options: Sendable {
        /// A conversation says itself whether its template leaves them out.
        var addsSpecialTokens = true
        /// Whether prompts that came as token ids are wanted as text as well.
        var showsText = false
        var skipsSpecialTokens = true
        /// Of a longer prompt only so many tokens at its end are kept.
        var keptTokenCount: Int?
    }

    /// - Throws: `APIError` 400 where a conversation cannot be rendered.
    func tokenized(with text: TextCodec, _ options: Options) async throws(APIError)
        -> TokenizedPrompt
    {
        var prompt = try await whole(text, options)
        if let count = options.keptTokenCount, prompt.tokens.count > count {
            prompt = TokenizedPrompt(text: prompt.text, tokens: Array(prompt.tokens.suffix(count)))
        }
        return prompt
    }

    private func whole(
        _ text: TextCodec, _ options: Options
    ) async throws(APIError) -> TokenizedPrompt {
        switch self {
        case .text(let string):
            let tokens = await text.tokens(
                of: string, addingSpecialTokens: options.addsSpecialTokens)
            return TokenizedPrompt(text: string, tokens: tokens)
        case .tokens(let ids): return Self.prompt(of: ids, text, options)
        case .mixed(let parts):
            var ids: [Int32] = []
            for (index, part) in parts.enumerated() {
                switch part {
                case .token(let id): ids.append(id)
                case .text(let string):
                    ids += await text.tokens(
                        of: string, addingSpecialTokens: options.addsSpecialTokens && index == 0)
                }
            }
            return Self.prompt(of: ids, text, options)
        case .conversation(let conversation):
            let string = try await conversation.rendered(with: text)
            let tokens = await text.tokens(
                of: string, addingSpecialTokens: conversation.addsSpecialTokens)
            return TokenizedPrompt(text: string, tokens: tokens)
        }
    }

    private static func prompt(
        of ids: [Int32], _ text: TextCodec, _ options: Options
    ) -> TokenizedPrompt {
        guard options.showsText else { return TokenizedPrompt(text: "", tokens: ids) }
        let string = text.tokenizer.decode(ids, skipSpecialTokens: options.skipsSpecialTokens)
        return TokenizedPrompt(text: string, tokens: ids)
    }
}
