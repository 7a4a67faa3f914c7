import Foundation

/// A byte-level BPE tokenizer of any vocabulary size that encodes every text and whose every id
/// decodes to something.
///
/// Ids: the special tokens, the 256 bytes, the 676 pairs of small letters, the pairs after a space,
/// then words of four letters, each made from two pairs by one merge.
struct SyntheticTokenizer {
    static let specialTokens = [
        "<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
    ]
    static let bosID = 1
    static let eosID = 2

    private let byteTokens: [String]
    /// In order of rank; each makes the token that is the two put together.
    private let merges: [(left: String, right: String)]

    init(vocabularySize: Int) throws(SynthError) {
        byteTokens = Self.byteAlphabet()
        let smallest = Self.specialTokens.count + byteTokens.count
        let letters = (UInt8(ascii: "a")...UInt8(ascii: "z")).map {
            String(UnicodeScalar($0))
        }
        let pairs = letters.flatMap { left in letters.map { (left: left, right: $0) } }
        let largest = smallest + 2 * pairs.count + pairs.count * pairs.count
        guard (smallest...largest).contains(vocabularySize) else {
            throw SynthError(
                "vocabulary size \(vocabularySize) is not between \(smallest) and \(largest)")
        }
        let space = byteTokens[Int(UInt8(ascii: " "))]
        var merges = pairs
        merges += pairs.map { (left: space, right: $0.left + $0.right) }
        let missing = vocabularySize - smallest - merges.count
        for index in 0..<max(0, missing) {
            let left = pairs[index / pairs.count]
            let right = pairs[index % pairs.count]
            merges.append((left: left.left + left.right, right: right.left + right.right))
        }
        self.merges = Array(merges.prefix(vocabularySize - smallest))
    }

    func write(to folder: URL, maximumLength: Int) throws {
        try Data(json().utf8).write(to: folder.appending(path: "tokenizer.json"))
        try OutputFolder.writeJSON(
            [
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": Self.specialTokens[Self.bosID],
                "eos_token": Self.specialTokens[Self.eosID],
                "pad_token": Self.specialTokens[0],
                "add_bos_token": false,
                "clean_up_tokenization_spaces": false,
                "model_max_length": maximumLength,
                "chat_template": Self.chatTemplate,
            ], to: folder.appending(path: "tokenizer_config.json"))
    }

    private static let chatTemplate =
        "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' "
        + "+ message['content'] + '<|end|>' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"

    /// Written by hand: a vocabulary's order should be seen in the file.
    private func json() -> String {
        let added = Self.specialTokens.enumerated().map { id, token in
            "{\"id\":\(id),\"content\":\"\(token)\",\"single_word\":false,\"lstrip\":false,"
                + "\"rstrip\":false,\"normalized\":false,\"special\":true}"
        }
        let tokens = Self.specialTokens + byteTokens + merges.map { $0.left + $0.right }
        let vocabulary = tokens.enumerated().map { id, token in "\(Self.quoted(token)):\(id)" }
        let ranks = merges.map { Self.quoted($0.left + " " + $0.right) }
        let byteLevel = "\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true"
        return """
            {"version":"1.0","truncation":null,"padding":null,
            "added_tokens":[\(added.joined(separator: ",\n"))],
            "normalizer":null,
            "pre_tokenizer":{\(byteLevel),"use_regex":true},
            "post_processor":null,
            "decoder":{\(byteLevel),"use_regex":true},
            "model":{"type":"BPE","dropout":null,"unk_token":null,
            "continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,
            "byte_fallback":false,"ignore_merges":false,
            "vocab":{\(vocabulary.joined(separator: ",\n"))},
            "merges":[\(ranks.joined(separator: ",\n"))]}}

            """
    }

    private static func quoted(_ token: String) -> String {
        let escaped = token.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
        return "\"\(escaped)\""
    }

    /// GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 and up.
    private static func byteAlphabet() -> [String] {
        var next: UInt32 = 0x100
        return (0...255).map { (byte: UInt32) in
            let isPrintable =
                (0x21...0x7e).contains(byte) || (0xa1...0xac).contains(byte)
                || (0xae...0xff).contains(byte)
            let scalar = isPrintable ? byte : next
            if !isPrintable { next += 1 }
            return UnicodeScalar(scalar).map { String($0) } ?? ""
        }
    }
}
