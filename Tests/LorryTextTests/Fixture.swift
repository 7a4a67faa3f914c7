import Foundation
import LorryText
import Testing

/// The tokenizers that Fixtures/generate.py trains, with what the reference library makes of texts.
enum Fixture {
    static let families = [
        "gpt2", "llama3", "qwen2", "smollm2", "ordered_case", "llama2", "metaspace", "gemma",
        "words",
    ]

    static func data(_ name: String) throws -> Data {
        let url = try #require(
            Bundle.module.url(forResource: name, withExtension: nil, subdirectory: "Fixtures"))
        return try Data(contentsOf: url)
    }

    static func json(_ name: String) throws -> JSONValue {
        try JSONValue(parsing: try data(name))
    }

    static func tokenizer(_ family: String) throws -> Tokenizer {
        try Tokenizer(json: try data("\(family).tokenizer.json"), configuration: nil)
    }
}

extension JSONValue {
    var ids: [Int32] { array?.compactMap { $0.integer.map { Int32($0) } } ?? [] }
}

/// Random numbers that a seed repeats (xorshift64*).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed &* 2 &+ 1 }

    mutating func next() -> UInt64 {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return state &* 0x2545_F491_4F6C_DD1D
    }
}
