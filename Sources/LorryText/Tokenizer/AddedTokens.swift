/// A token that is found in text before the model sees it.
struct AddedToken: Sendable, Equatable {
    var id: Int32
    var content: [UInt8]
    var isSingleWord = false
    var stripsLeft = false
    var stripsRight = false
    var isNormalized = true
    var isSpecial = false
}

/// Finds added tokens in text: leftmost first, the longest of those that start there.
///
/// Follows `AddedVocabulary` of Hugging Face's tokenizers.
struct AddedTokenMatcher: Sendable {
    enum Part: Equatable {
        case text(Int, Int)
        case token(Int32)
    }

    private var startBytes = [Bool](repeating: false, count: 256)
    /// Edges of a byte trie: node << 8 | byte → node.
    private var edges: [UInt32: UInt32] = [:]
    /// Per node the index in `tokens` of the token that ends there, or -1.
    private var tokenAtNode: [Int32] = [-1]
    private var tokens: [AddedToken] = []

    var isEmpty: Bool { tokens.isEmpty }

    /// `pattern` is what to look for: the token's content, normalized where it is to be.
    mutating func insert(_ token: AddedToken, pattern: [UInt8]) {
        guard let first = pattern.first else { return }
        startBytes[Int(first)] = true
        var node: UInt32 = 0
        for byte in pattern {
            let key = node << 8 | UInt32(byte)
            if let next = edges[key] {
                node = next
            } else {
                let next = UInt32(tokenAtNode.count)
                tokenAtNode.append(-1)
                edges[key] = next
                node = next
            }
        }
        tokenAtNode[Int(node)] = Int32(tokens.count)
        tokens.append(token)
    }

    private func longestMatch(_ text: [UInt8], at start: Int) -> (token: Int, end: Int)? {
        var node: UInt32 = 0
        var found: (token: Int, end: Int)?
        var index = start
        while index < text.count, let next = edges[node << 8 | UInt32(text[index])] {
            node = next
            index += 1
            let token = tokenAtNode[Int(node)]
            if token >= 0 { found = (Int(token), index) }
        }
        return found
    }

    /// Cuts `text` into added tokens and the text between them.
    func parts(of text: [UInt8]) -> [Part] {
        if tokens.isEmpty || text.isEmpty { return text.isEmpty ? [] : [.text(0, text.count)] }
        var parts: [Part] = []
        var last = 0
        var index = 0
        while index < text.count {
            guard startBytes[Int(text[index])], let match = longestMatch(text, at: index) else {
                index += 1
                continue
            }
            let token = tokens[match.token]
            var start = index
            var end = match.end
            // The search goes on behind the match itself, whether or not it counts.
            index = match.end
            if token.isSingleWord, !isSingleWord(text, start, end) { continue }
            if token.stripsLeft { start = max(spaceStart(text, before: start), last) }
            if token.stripsRight { end = spaceEnd(text, after: end) }
            if last < start { parts.append(.text(last, start)) }
            parts.append(.token(token.id))
            last = end
        }
        if last < text.count { parts.append(.text(last, text.count)) }
        return parts
    }

    private func isSingleWord(_ text: [UInt8], _ start: Int, _ end: Int) -> Bool {
        if start > 0, ScalarClass.isWord(UTF8Bytes.scalar(text, before: start).scalar) {
            return false
        }
        return end == text.count || !ScalarClass.isWord(UTF8Bytes.scalar(text, at: end).scalar)
    }

    private func spaceStart(_ text: [UInt8], before end: Int) -> Int {
        var start = end
        while start > 0 {
            let (scalar, length) = UTF8Bytes.scalar(text, before: start)
            if !ScalarClass.isWhitespace(scalar) { break }
            start -= length
        }
        return start
    }

    private func spaceEnd(_ text: [UInt8], after start: Int) -> Int {
        var end = start
        while end < text.count {
            let (scalar, length) = UTF8Bytes.scalar(text, at: end)
            if !ScalarClass.isWhitespace(scalar) { break }
            end += length
        }
        return end
    }
}
