import LorryEngine
import LorryText

/// How single tokens are shown beside their log-probabilities.
struct TokenNames: Sendable {
    let tokenizer: Tokenizer
    /// Shows `token_id:123` instead of the token's text, which need not be unique.
    let byID: Bool

    /// Bytes that are no whole characters are shown as U+FFFD.
    func text(_ id: Int32) -> String {
        byID ? "token_id:\(id)" : String(decoding: tokenizer.pieceBytes(id), as: UTF8.self)
    }

    func bytes(_ id: Int32) -> [UInt8] { tokenizer.pieceBytes(id) }

    /// JSON has no infinity; vLLM writes −9999 for what cannot happen.
    static func json(_ logprob: Float) -> JSON {
        logprob.isFinite ? .float(max(logprob, -9999)) : .float(-9999)
    }

    /// The alternatives asked for, with the token itself added where it is not among them.
    static func alternatives(
        of id: Int32, _ logprobs: TokenLogprobs, count: Int
    ) -> [(id: Int32, logprob: Float)] {
        var list = logprobs.top.prefix(count).map { (id: $0.id, logprob: $0.logprob) }
        if !list.contains(where: { $0.id == id }) { list.append((id, logprobs.logprob)) }
        return list
    }
}

/// The `logprobs` object of completions, whose offsets count on from chunk to chunk.
struct CompletionLogprobs: Sendable {
    let names: TokenNames
    let alternativeCount: Int
    /// Unicode scalars of the token texts so far.
    private var offset = 0

    init(names: TokenNames, alternativeCount: Int) {
        self.names = names
        self.alternativeCount = alternativeCount
    }

    mutating func json(_ tokens: [(id: Int32, logprobs: TokenLogprobs?)]) -> JSON {
        var texts: [JSON] = []
        var values: [JSON] = []
        var tops: [JSON] = []
        var offsets: [JSON] = []
        for (id, logprobs) in tokens {
            let text = names.text(id)
            texts.append(.string(text))
            offsets.append(.integer(offset))
            offset += text.unicodeScalars.count
            values.append(logprobs.map { TokenNames.json($0.logprob) } ?? .null)
            tops.append(logprobs.map { top(of: id, $0) } ?? .null)
        }
        return [
            "text_offset": .array(offsets), "token_logprobs": .array(values),
            "tokens": .array(texts), "top_logprobs": .array(tops),
        ]
    }

    /// Tokens with the same text would be the same key: the most probable one keeps it.
    private func top(of id: Int32, _ logprobs: TokenLogprobs) -> JSON {
        var seen: Set<String> = []
        var members: [(key: String, value: JSON)] = []
        let list = TokenNames.alternatives(of: id, logprobs, count: alternativeCount)
        for (id, logprob) in list {
            let text = names.text(id)
            guard seen.insert(text).inserted else { continue }
            members.append((text, TokenNames.json(logprob)))
        }
        return .object(members)
    }
}
