import Foundation
import LorryText
import Testing

/// Runs over a folder of real tokenizers with reference rows, named by LORRY_TOKENIZERS_DIR:
/// `NAME/tokenizer.json` with `NAME/golden.json`, `vectors/*.inp` and `.out`, and
/// `chat_templates/*.jinja` with `golden.json`. Skipped when the variable is not set.
@Suite(
    .enabled(
        if: ProcessInfo.processInfo.environment["LORRY_TOKENIZERS_DIR"] != nil,
        "LORRY_TOKENIZERS_DIR names no folder of real tokenizers"))
struct RealTokenizersTests {
    private let folder = URL(
        fileURLWithPath: ProcessInfo.processInfo.environment["LORRY_TOKENIZERS_DIR"] ?? "")

    private func json(_ path: String) throws -> JSONValue {
        try JSONValue(parsing: try Data(contentsOf: folder.appendingPathComponent(path)))
    }

    private func names() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().filter {
            FileManager.default.fileExists(
                atPath: folder.appendingPathComponent("\($0)/tokenizer.json").path)
        }
    }

    @Test func agreesOnEveryRow() throws {
        var rowCount = 0
        for name in try names() {
            let tokenizer = try Tokenizer(directory: folder.appendingPathComponent(name))
            for row in try #require(try json("\(name)/golden.json")["rows"]?.array) {
                let text = try #require(row["text"]?.string)
                let ids = try #require(row["ids"]).ids
                #expect(tokenizer.encode(text, addSpecialTokens: false) == ids, "\(name): \(text)")
                #expect(
                    tokenizer.encode(text, addSpecialTokens: true) == row["ids_with_special"]?.ids,
                    "\(name): \(text)")
                let decoded = tokenizer.decode(ids, skipSpecialTokens: false)
                #expect(decoded == row["decoded"]?.string, "\(name): \(text)")
                let skipped = tokenizer.decode(ids, skipSpecialTokens: true)
                #expect(skipped == row["decoded_skip_special"]?.string, "\(name): \(text)")
                rowCount += 1
            }
        }
        #expect(rowCount > 0)
    }

    @Test func rendersEveryChat() throws {
        for name in try names() {
            let tokenizer = try Tokenizer(directory: folder.appendingPathComponent(name))
            for chat in try json("\(name)/golden.json")["chats"]?.array ?? [] {
                let template = try #require(tokenizer.chatTemplate)
                let text = try template.render([
                    "messages": chat["messages"] ?? .null,
                    "add_generation_prompt": chat["add_generation_prompt"] ?? .null,
                    "bos_token": tokenizer.bosToken.map { .string($0) } ?? .null,
                    "eos_token": tokenizer.eosToken.map { .string($0) } ?? .null,
                    "tools": .null, "documents": .null,
                ])
                #expect(text == chat["text"]?.string, "\(name)")
            }
        }
    }

    @Test(arguments: [
        ("gpt-2", "gpt2"), ("llama-bpe", "llama-3"), ("llama-spm", "llama-2"), ("qwen2", "qwen2"),
    ])
    func agreesOnEveryVector(_ vectors: String, _ name: String) throws {
        let tokenizer = try Tokenizer(directory: folder.appendingPathComponent(name))
        func read(_ suffix: String) throws -> String {
            try String(
                contentsOf: folder.appendingPathComponent("vectors/\(vectors).\(suffix)"),
                encoding: .utf8)
        }
        let texts = try read("inp").components(separatedBy: "\n__ggml_vocab_test__\n")
        let lines = try read("out").components(separatedBy: "\n")
        #expect(texts.count > 40)
        for (text, line) in zip(texts, lines) {
            let ids = line.split(separator: " ").compactMap { Int32($0) }
            #expect(
                tokenizer.encode(text, addSpecialTokens: false) == ids, "\(text.debugDescription)")
        }
    }

    @Test func rendersEveryTemplate() throws {
        let golden = try json("chat_templates/golden.json")
        let messages = try #require(golden["messages"]?.array)
        for (name, cases) in try #require(golden["outputs"]?.members) {
            let file = folder.appendingPathComponent("chat_templates/\(name)")
            let template = try ChatTemplate(source: try String(contentsOf: file, encoding: .utf8))
            for (kind, expected) in try #require(cases.members) {
                let chosen = kind == "plain" ? messages : Array(messages.dropFirst())
                let text = try? template.render([
                    "messages": .array(kind == "one" || kind == "tools" ? [messages[1]] : chosen),
                    "tools": kind == "tools" ? golden["tools"] ?? .null : .null,
                    "documents": .null, "add_generation_prompt": .bool(true),
                    "bos_token": golden["bos"] ?? .null, "eos_token": golden["eos"] ?? .null,
                ])
                // A golden without text is an error, which ours must be too.
                #expect(text == expected.string, "\(name) \(kind)")
            }
        }
    }
}
