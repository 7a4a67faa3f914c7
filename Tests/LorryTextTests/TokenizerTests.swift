import Foundation
import LorryText
import Testing

@Suite struct TokenizerTests {
    @Test(arguments: Fixture.families)
    func agreesWithTheReference(_ family: String) throws {
        let tokenizer = try Fixture.tokenizer(family)
        let golden = try Fixture.json("\(family).golden.json")
        #expect(tokenizer.vocabularySize == golden["vocabularySize"]?.integer)
        let rows = try #require(golden["rows"]?.array)
        #expect(rows.count == 80)
        for row in rows {
            let text = try #require(row["text"]?.string)
            let ids = tokenizer.encode(text, addSpecialTokens: false)
            #expect(ids == row["ids"]?.ids, "\(text.debugDescription)")
            #expect(tokenizer.encode(text, addSpecialTokens: true) == row["special"]?.ids)
        }
        for row in try #require(golden["decoded"]?.array) {
            let ids = try #require(row["ids"]).ids
            let text = tokenizer.decode(ids, skipSpecialTokens: false)
            #expect(text.utf8.elementsEqual(try #require(row["text"]?.string).utf8), "\(ids)")
            let skipped = tokenizer.decode(ids, skipSpecialTokens: true)
            #expect(skipped.utf8.elementsEqual(try #require(row["skipped"]?.string).utf8), "\(ids)")
        }
    }

    @Test(arguments: Fixture.families)
    func bindsLongTextsWithoutBlowingUp(_ family: String) throws {
        let tokenizer = try Fixture.tokenizer(family)
        for unit in ["a", " ", "\n", "é", "🙂", "1", "_", "\u{301}"] {
            let text = String(repeating: unit, count: 100_000)
            #expect(!tokenizer.encode(text, addSpecialTokens: false).isEmpty || family == "words")
        }
    }

    /// A long piece takes the heap, a short one the scan: both must merge alike.
    @Test func mergesLongPiecesLikeShortOnes() throws {
        let tokenizer = try Fixture.tokenizer("gpt2")
        let long = tokenizer.encode(String(repeating: "lorry", count: 60), addSpecialTokens: false)
        #expect(
            tokenizer.decode(long, skipSpecialTokens: false)
                == String(repeating: "lorry", count: 60))
        let golden = try Fixture.json("gpt2.golden.json")
        let row = golden["rows"]?.array?.first { $0["text"]?.string?.count == 70 }
        let text = try #require(row?["text"]?.string)
        #expect(tokenizer.encode(text, addSpecialTokens: false) == row?["ids"]?.ids)
    }

    @Test func answersTheSameFromSeveralTasks() async throws {
        let tokenizer = try Fixture.tokenizer("qwen2")
        let text = String(repeating: "The lorry's 12 wheels, é 日本 — ", count: 50)
        let expected = tokenizer.encode(text, addSpecialTokens: true)
        await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    (0..<20).allSatisfy { _ in
                        tokenizer.encode(text, addSpecialTokens: true) == expected
                    }
                }
            }
            for await isEqual in group { #expect(isEqual) }
        }
    }

    @Test func givesPiecesAndTheirBytes() throws {
        let tokenizer = try Fixture.tokenizer("llama2")
        let newline = try #require(tokenizer.id(of: "<0x0A>"))
        #expect(tokenizer.piece(newline) == "<0x0A>")
        #expect(tokenizer.pieceBytes(newline) == [0x0A])
        let mark = try #require(tokenizer.id(of: "▁"))
        #expect(tokenizer.pieceBytes(mark) == [0x20])
        let start = try #require(tokenizer.id(of: "<s>"))
        #expect(tokenizer.isSpecial(start))
        #expect(tokenizer.pieceBytes(start) == Array("<s>".utf8))
        #expect(tokenizer.piece(-1) == nil)
        #expect(tokenizer.piece(Int32.max) == nil)
        #expect(tokenizer.decode([-5, Int32.max], skipSpecialTokens: true) == "")
    }

    @Test func configurationDecidesAboutSpecialTokens() throws {
        let json = try Fixture.data("llama2.tokenizer.json")
        func tokenizer(_ configuration: String) throws -> Tokenizer {
            try Tokenizer(json: json, configuration: Data(configuration.utf8))
        }
        let plain = try tokenizer(#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}"#)
        #expect(plain.bosToken == "<s>")
        #expect(plain.eosTokenID == 2)
        #expect(plain.encode("a", addSpecialTokens: true).first == 1)
        let none = try tokenizer(#"{"bos_token": "<s>", "add_bos_token": false}"#)
        #expect(
            none.encode("a", addSpecialTokens: true) == none.encode("a", addSpecialTokens: false))
        let both = try tokenizer(
            #"{"bos_token":"<s>","eos_token":"</s>","add_bos_token":true,"add_eos_token":true}"#)
        #expect(both.encode("a", addSpecialTokens: true).last == 2)
        let named = try tokenizer(
            #"{"chat_template":[{"name":"default","template":"D"},{"name":"tool_use","template":"T"}]}"#
        )
        #expect(try named.chatTemplate?.render([:]) == "D")
        #expect(try named.namedChatTemplates["tool_use"]?.render([:]) == "T")
    }

    @Test(arguments: [
        (#"{"model":{"type":"WordPiece","vocab":{},"merges":[]}}"#, "WordPiece"),
        (#"{"model":{"type":"BPE","vocab":{}}}"#, "merges"),
        (#"{"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}"#, "a b"),
        (#"{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}"#, "-1"),
        (#"{"model":{"type":"BPE","vocab":{"a":99999999},"merges":[]}}"#, "99999999"),
        (#"{"version":"2.0","model":{"type":"BPE","vocab":{},"merges":[]}}"#, "2.0"),
        (#"{"model":{"vocab":{},"merges":[]},"normalizer":{"type":"Odd"}}"#, "Odd"),
        (#"{"model":{"vocab":{},"merges":[]},"pre_tokenizer":{"type":"Odd"}}"#, "Odd"),
        (#"{"model":{"vocab":{},"merges":[]},"decoder":{"type":"Odd"}}"#, "Odd"),
        (#"{"model":{"vocab":{},"merges":[]},"post_processor":{"type":"Odd"}}"#, "Odd"),
        (
            #"{"model":{"vocab":{},"merges":[]},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"}}"#,
            "("
        ),
        ("{", "tokenizer.json"), ("[]", "tokenizer.json"), ("{}", "model"),
    ])
    func refusesByName(_ json: String, _ name: String) throws {
        let error = #expect(throws: TokenizerError.self) {
            try Tokenizer(json: Data(json.utf8), configuration: nil)
        }
        #expect(error?.message.contains(name) == true, "\(error?.message ?? "")")
    }
}
