import Foundation
import LorryText

/// A byte-level tokenizer without merges: token ids 0–255 are the bytes, 256 ends.
enum TestTokenizer {
    static let endToken: Int32 = 256
    static let beginToken: Int32 = 257
    static let vocabularySize = 258

    static func tokens(_ text: String) -> [Int32] { text.utf8.map { Int32($0) } }

    static let template = """
        {{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}\
        {% if message.tool_calls %}{{ message.tool_calls[0].function.arguments.city }}{% endif %}\
        {{ '\\n' }}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}\
        {% if shout %}!{% endif %}\
        {% if add_generation_prompt %}<assistant>{% endif %}
        """

    static func make(template: String? = TestTokenizer.template) throws -> Tokenizer {
        var vocabulary: [String: Int] = [:]
        for byte in 0..<256 { vocabulary[String(symbol(UInt8(byte)))] = byte }
        let special = { (id: Int32, content: String) -> [String: Any] in
            [
                "id": Int(id), "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            ]
        }
        let document: [String: Any] = [
            "version": "1.0", "truncation": NSNull(), "padding": NSNull(),
            "added_tokens": [special(endToken, "<end>"), special(beginToken, "<begin>")],
            "normalizer": NSNull(),
            "pre_tokenizer": [
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": false,
            ],
            "post_processor": NSNull(),
            "decoder": [
                "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                "use_regex": true,
            ],
            "model": [
                "type": "BPE", "dropout": NSNull(), "unk_token": NSNull(),
                "continuing_subword_prefix": NSNull(), "end_of_word_suffix": NSNull(),
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocabulary, "merges": [String](),
            ],
        ]
        var configuration: [String: Any] = ["bos_token": "<begin>", "eos_token": "<end>"]
        if let template { configuration["chat_template"] = template }
        return try Tokenizer(
            json: JSONSerialization.data(withJSONObject: document),
            configuration: JSONSerialization.data(withJSONObject: configuration))
    }

    /// GPT-2's printable stand-in for a byte.
    private static func symbol(_ byte: UInt8) -> Character {
        let isPrintable: (UInt8) -> Bool = {
            (0x21...0x7E).contains($0) || (0xA1...0xAC).contains($0) || $0 >= 0xAE
        }
        if isPrintable(byte) { return Character(UnicodeScalar(byte)) }
        let position = (0..<byte).filter { !isPrintable($0) }.count
        return Character(UnicodeScalar(256 + UInt32(position)) ?? "?")
    }
}
