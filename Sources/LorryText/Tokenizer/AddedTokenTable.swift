/// Ids and patterns of added tokens, assigned in the file's order as the reference does.
struct AddedTokenTable {
    private(set) var rawMatcher = AddedTokenMatcher()
    private(set) var normalizedMatcher = AddedTokenMatcher()
    private(set) var bytesOfID: [Int32: [UInt8]] = [:]
    private(set) var idOfContent: [[UInt8]: Int32] = [:]
    private(set) var specialIDs: Set<Int32> = []
    private(set) var vocabularySize: Int

    init(_ tokens: [AddedToken], _ vocabulary: Vocabulary, _ normalizer: Normalizer?) {
        vocabularySize = vocabulary.count
        // The number in the file does not count: a token that the model lacks gets the next free id.
        var nextID = Int32(vocabulary.count)
        var tokenOfID: [Int32: AddedToken] = [:]
        var order: [Int32] = []
        var specialContents: Set<[UInt8]> = []
        for var token in tokens where !token.content.isEmpty {
            if let known = idOfContent[token.content] ?? vocabulary.id(of: token.content) {
                token.id = known
            } else {
                token.id = nextID
                nextID += 1
                vocabularySize += 1
            }
            idOfContent[token.content] = token.id
            if token.isSpecial { specialContents.insert(token.content) }
            if tokenOfID.updateValue(token, forKey: token.id) == nil { order.append(token.id) }
        }
        for id in order {
            guard let token = tokenOfID[id] else { continue }
            var shown = token.content
            if token.isNormalized {
                normalizer?.apply(&shown)
                normalizedMatcher.insert(token, pattern: shown)
            } else {
                rawMatcher.insert(token, pattern: shown)
            }
            bytesOfID[id] = shown
            // What counts is the text that decoding sees, not the flag of the id.
            if specialContents.contains(shown) { specialIDs.insert(id) }
        }
        for content in specialContents {
            guard let id = vocabulary.id(of: content), bytesOfID[id] == nil else { continue }
            specialIDs.insert(id)
        }
    }
}
