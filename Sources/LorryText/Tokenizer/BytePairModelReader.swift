import OrderedCollections

/// Reads the `model` of a `tokenizer.json`, whose vocabulary and merges are too large for a tree.
enum BytePairModelReader {
    static func read(_ json: [UInt8], at start: Int) throws(TokenizerError) -> BytePairModel {
        var fields: [String: JSONValue] = [:]
        var vocabularyStart: Int?
        var mergesStart: Int?
        do {
            var scanner = JSONScanner(json, at: start)
            try scanner.readObject { (scanner, key) throws(JSONError) in
                _ = scanner.peek()
                switch String(decoding: key, as: UTF8.self) {
                case "vocab":
                    vocabularyStart = scanner.index
                    try scanner.skipValue()
                case "merges":
                    mergesStart = scanner.index
                    try scanner.skipValue()
                case let name:
                    fields[name] = try scanner.readValue()
                }
            }
        } catch {
            throw .invalid("tokenizer.json: model: \(error)")
        }
        let part = PartFields(part: "model", value: .object(.init(uniqueKeysWithValues: fields)))
        if !part.type.isEmpty, part.type != "BPE" { throw part.unsupportedType() }
        guard let vocabularyStart, let mergesStart else {
            throw .unsupported("tokenizer.json: a model without vocab and merges is not supported")
        }
        let options = try readOptions(part)
        let vocabulary = try readVocabulary(json, at: vocabularyStart)
        var reader = MergeReader(vocabulary, prefixLength: options.subwordPrefix.count)
        try reader.read(json, at: mergesStart)
        return BytePairModel(
            vocabulary: vocabulary, merges: reader.table(), options: options,
            mergedIDs: reader.mergedIDs)
    }

    private static func readOptions(
        _ part: PartFields
    ) throws(TokenizerError) -> BytePairModel.Options {
        if case .double(let dropout) = part.value["dropout"], dropout != 0 {
            throw .unsupported("tokenizer.json: model: dropout is not supported")
        }
        var options = BytePairModel.Options()
        options.unknownToken = part.value["unk_token"]?.string.map { Array($0.utf8) }
        if let prefix = part.value["continuing_subword_prefix"]?.string {
            options.subwordPrefix = Array(prefix.utf8)
        }
        if let suffix = part.value["end_of_word_suffix"]?.string {
            options.wordSuffix = Array(suffix.utf8)
        }
        options.fusesUnknown = try part.bool("fuse_unk", default: false)
        options.fallsBackToBytes = try part.bool("byte_fallback", default: false)
        options.ignoresMerges = try part.bool("ignore_merges", default: false)
        return options
    }

    private static func readVocabulary(
        _ json: [UInt8], at start: Int
    ) throws(TokenizerError) -> Vocabulary {
        var vocabulary = Vocabulary()
        var failure: TokenizerError?
        do {
            var scanner = JSONScanner(json, at: start)
            try scanner.readObject { (scanner, token) throws(JSONError) in
                let id = try scanner.readInteger()
                do throws(TokenizerError) {
                    try vocabulary.insert(token, id: id)
                } catch {
                    failure = failure ?? error
                }
            }
        } catch {
            throw .invalid("tokenizer.json: vocab: \(error)")
        }
        if let failure { throw failure }
        return vocabulary
    }
}

/// Reads merges, each a string "left right" or a pair of strings.
private struct MergeReader {
    let vocabulary: Vocabulary
    let prefixLength: Int
    private var pairs: [(left: Int32, right: Int32)] = []
    private(set) var mergedIDs: [Int32] = []
    private var left: [UInt8] = []
    private var right: [UInt8] = []
    private var failure: TokenizerError?

    init(_ vocabulary: Vocabulary, prefixLength: Int) {
        self.vocabulary = vocabulary
        self.prefixLength = prefixLength
    }

    func table() -> MergeTable {
        var table = MergeTable(expectedCount: pairs.count)
        for (rank, pair) in pairs.enumerated() {
            table.insert(
                left: pair.left, right: pair.right, rank: rank, merged: mergedIDs[rank])
        }
        return table
    }

    mutating func read(_ json: [UInt8], at start: Int) throws(TokenizerError) {
        do {
            var scanner = JSONScanner(json, at: start)
            var isPair = true
            try scanner.readArray { (scanner) throws(JSONError) in
                if scanner.peek() == UInt8(ascii: "[") {
                    try readPair(&scanner)
                } else {
                    isPair = try readLine(&scanner)
                }
                if isPair { addPair() }
                isPair = true
            }
        } catch {
            throw .invalid("tokenizer.json: merges: \(error)")
        }
        if let failure { throw failure }
    }

    private mutating func readPair(_ scanner: inout JSONScanner) throws(JSONError) {
        left.removeAll(keepingCapacity: true)
        right.removeAll(keepingCapacity: true)
        try scanner.expect(UInt8(ascii: "["))
        _ = scanner.peek()
        try scanner.readString(into: &left)
        try scanner.expect(UInt8(ascii: ","))
        _ = scanner.peek()
        try scanner.readString(into: &right)
        try scanner.expect(UInt8(ascii: "]"))
    }

    /// False for the line that only states the format's version.
    private mutating func readLine(_ scanner: inout JSONScanner) throws(JSONError) -> Bool {
        left.removeAll(keepingCapacity: true)
        try scanner.readString(into: &left)
        if left.starts(with: "#version".utf8) { return false }
        guard let space = left.firstIndex(of: 0x20), !left[(space + 1)...].contains(0x20) else {
            throw scanner.failure("a merge is not two tokens with a space between")
        }
        right = Array(left[(space + 1)...])
        left.removeSubrange(space...)
        return true
    }

    private mutating func addPair() {
        let leftID = vocabulary.id(of: left, 0, left.count)
        let rightID = vocabulary.id(of: right, 0, right.count)
        let named = left
        left.append(contentsOf: right.dropFirst(prefixLength))
        let merged = vocabulary.id(of: left, 0, left.count)
        guard leftID >= 0, rightID >= 0, merged >= 0 else {
            let text = String(decoding: named, as: UTF8.self)
            let other = String(decoding: right, as: UTF8.self)
            failure =
                failure
                ?? .invalid("tokenizer.json: the merge \(text) \(other) is not in the vocabulary")
            return
        }
        pairs.append((leftID, rightID))
        mergedIDs.append(merged)
    }
}
