import Foundation
import LorryModel
import LorryText

/// A chat template, rendered for a short conversation; also as a pattern of `target_modules`.
struct TemplateTarget: FuzzTarget {
    private let context: JSONValue
    private let limits: ChatTemplate.Limits

    init() throws {
        context = try JSONValue(
            parsing: """
                {"messages": [{"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}],
                "tools": [{"x": 1.5}], "add_generation_prompt": true, "bos_token": "<s>"}
                """.utf8)
        var limits = ChatTemplate.Limits()
        limits.steps = 50_000
        limits.outputByteCount = 1 << 16
        self.limits = limits
    }

    func run(_ input: [UInt8]) throws {
        guard let source = String(validating: input, as: UTF8.self) else { return }
        if let pattern = try? ModulePattern(source, anchoring: .both) {
            _ = try? pattern.matches("model.layers.11.self_attn.q_proj")
        }
        _ = try ChatTemplate(source: source).render(
            context, now: Date(timeIntervalSince1970: 1_000_000), limits: limits)
    }

    static func seeds() throws -> [String: [UInt8]] {
        let file = try JSONValue(
            parsing: Fixtures.bytes("LorryTextTests/Fixtures/templates.json"))
        var seeds: [String: [UInt8]] = [:]
        var rest = [file]
        while let value = rest.popLast() {
            rest += (value.array ?? []) + (value.members ?? []).map(\.value)
            if let text = value.string, text.contains("{") {
                seeds["template-\(seeds.count)"] = Array(text.utf8)
            }
        }
        return seeds
    }
}

/// A `tokenizer.json`, as adapters may bring it, and a text that it encodes and decodes.
struct TokenizerTarget: FuzzTarget {
    private static let folder = "LorryTextTests/Fixtures"

    func run(_ input: [UInt8]) throws {
        let tokenizer = try Tokenizer(json: Data(input), configuration: nil)
        let ids = tokenizer.encode(
            "Hello, wörld! 123  <s>\n\t\u{1F600}", addSpecialTokens: true)
        _ = tokenizer.decode(ids, skipSpecialTokens: false)
    }

    static func seeds() throws -> [String: [UInt8]] {
        var seeds: [String: [UInt8]] = [:]
        for file in try Fixtures.children(folder)
        where file.lastPathComponent.hasSuffix("tokenizer.json") {
            seeds[file.lastPathComponent] = try Fixtures.bytes(
                "\(folder)/\(file.lastPathComponent)")
        }
        return seeds
    }
}
