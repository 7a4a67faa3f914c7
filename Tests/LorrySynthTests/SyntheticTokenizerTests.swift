import Foundation
import LorrySynth
import Testing

@Suite struct SyntheticTokenizerTests {
    /// Applies merges by rank, as BPE is defined, to the letters of one word.
    private func encode(_ word: String, ranks: [String: Int]) -> [String] {
        var parts = word.map(String.init)
        while true {
            let best = parts.indices.dropLast().compactMap { index in
                ranks[parts[index] + " " + parts[index + 1]].map { (rank: $0, index: index) }
            }.min { ($0.rank, $0.index) < ($1.rank, $1.index) }
            guard let best else { return parts }
            parts[best.index] += parts.remove(at: best.index + 1)
        }
    }

    @Test(arguments: [263, 264, 300, 939, 1615, 1616, 5000])
    func everyIdIsATokenThatItsMergesReach(vocabularySize: Int) async throws {
        let folder = try TemporaryFolder()
        let model = folder.url.appending(path: "m")
        var shape = SyntheticModelTests.tinyShape()
        shape.vocabularySize = vocabularySize
        try await SyntheticModel.write(shape: shape, to: model, seed: 1)
        let tokenizer = try jsonObject(model.appending(path: "tokenizer.json"))
        let bpe = try #require(tokenizer["model"] as? [String: Any])
        let vocabulary = try #require(bpe["vocab"] as? [String: Int])
        let merges = try #require(bpe["merges"] as? [String])
        #expect(Set(vocabulary.values) == Set(0..<vocabularySize))
        let ranks = Dictionary(uniqueKeysWithValues: merges.enumerated().map { ($1, $0) })
        for (token, id) in vocabulary where id >= 263 {
            #expect(encode(token, ranks: ranks) == [token])
        }
        let bytes = vocabulary.filter { (7..<263).contains($0.value) }
        #expect(bytes.count == 256)
        #expect(bytes.keys.allSatisfy { $0.unicodeScalars.count == 1 })
        #expect(bytes["Ġ"] == 7 + 32)
        #expect(bytes["\""] == 7 + 34)
        #expect(bytes["\\"] == 7 + 92)
        let added = try #require(tokenizer["added_tokens"] as? [[String: Any]])
        for token in added {
            let content = try #require(token["content"] as? String)
            #expect(vocabulary[content] == token["id"] as? Int)
        }
        let configuration = try jsonObject(model.appending(path: "tokenizer_config.json"))
        #expect(configuration["bos_token"] as? String == "<|bos|>")
        #expect((configuration["chat_template"] as? String)?.contains("messages") == true)
    }
}
