import Foundation
import Testing

/// Greedy answers that transformers and peft gave in float32.
struct GoldenAnswer: Sendable {
    let prompt: String
    let promptIDs: [Int]
    let ids: [Int]
    /// Between the two largest logits of each step.
    let margins: [Double]
    /// The prompt and its answer: decoded alone, some answers would lose their first space.
    let text: String

    /// Below this margin another order of summation may turn the choice.
    static let clearMargin = 0.01

    /// How many tokens can be compared with `other`, which may leave at a near tie.
    func comparableCount(with other: [Int]) -> Int {
        let difference = zip(ids, other).enumerated().first { $1.0 != $1.1 }
        guard let step = difference?.offset, margins[step] < Self.clearMargin else {
            return ids.count
        }
        return step
    }
}

/// The bundled model's and adapters' answers.
struct TalesGoldens: Decodable {
    struct Output: Decodable {
        let prompt: String
        let promptIds: [Int]
        let greedyIds: [Int]
        let margins: [Double]
        let text: String
    }

    let outputs: [String: [Output]]

    static func read() throws -> TalesGoldens {
        let file = PackageFiles.examples.appending(path: "tales-goldens.json")
        return try Wire.decoder().decode(Self.self, from: Data(contentsOf: file))
    }

    func answers(_ name: String) throws -> [GoldenAnswer] {
        guard let outputs = outputs[name] else { throw TestFailure("no goldens of \(name)") }
        return outputs.map {
            GoldenAnswer(
                prompt: $0.prompt, promptIDs: $0.promptIds, ids: $0.greedyIds, margins: $0.margins,
                text: $0.prompt + $0.text)
        }
    }
}

private struct StoriesGolden: Decodable {
    struct Output: Decodable {
        let prompt: String
        let inputIds: [Int]
        let greedyIds: [Int]
        let stepMargins: [Double]
        let fullText: String
    }

    let prompts: [Output]

    static func read(_ file: URL) throws -> [GoldenAnswer] {
        let golden = try Wire.decoder().decode(Self.self, from: Data(contentsOf: file))
        return golden.prompts.map {
            GoldenAnswer(
                prompt: $0.prompt, promptIDs: $0.inputIds, ids: $0.greedyIds,
                margins: $0.stepMargins, text: $0.fullText)
        }
    }
}

/// Asks for every golden's answer and compares.
/// - Returns: the answers' texts, and how many tokens could be compared of how many.
private func check(
    _ goldens: [GoldenAnswer], model: String, _ client: Client
) async throws -> (texts: [String], compared: Int, total: Int) {
    var texts: [String] = []
    var compared = 0
    for golden in goldens {
        var ask = Ask(model, .text(golden.prompt), golden.ids.count)
        ask.addSpecialTokens = !golden.prompt.hasPrefix("<|bos|>")
        let choice = try await client.complete(ask).choice()
        let ids = try #require(choice.tokenIds)
        #expect(choice.promptTokenIds == golden.promptIDs, "\(model): \(golden.prompt)")
        #expect(choice.finishReason == "length")
        let count = golden.comparableCount(with: ids)
        #expect(ids.count == golden.ids.count)
        #expect(ids.prefix(count) == golden.ids.prefix(count), "\(model): \(golden.prompt)")
        if count == golden.ids.count {
            #expect(golden.prompt + choice.text == golden.text, "\(model): \(golden.prompt)")
        }
        compared += count
        texts.append(choice.text)
    }
    return (texts, compared, goldens.count * (goldens.first?.ids.count ?? 0))
}

extension EndToEndTests {
    struct GoldenTests {
        @Test func bundledModelAndAdaptersAnswerAsTheirGoldens() async throws {
            let goldens = try TalesGoldens.read()
            try await LorryServer.run { server in
                let base = try await check(
                    try goldens.answers("base"), model: "tales-5m", server.client)
                var compared = base.compared
                var total = base.total
                for name in ["pirate", "shout", "telegram", "robots", "shakespeare"] {
                    let answers = try await check(
                        try goldens.answers(name), model: name, server.client)
                    compared += answers.compared
                    total += answers.total
                    for (mine, plain) in zip(answers.texts, base.texts) {
                        #expect(mine != plain, "\(name) answers as the base does")
                    }
                }
                // Near ties are rare: most of every answer has to have been compared.
                #expect(compared * 10 > total * 9, "\(compared) of \(total) tokens compared")
            }
        }

        private static let stories = ProcessInfo.processInfo.environment["LORRY_STORIES_DIR"]

        /// Over `model/`, `adapters/NAME/` and `goldens/NAME.json` of a folder.
        @Test(.enabled(if: stories != nil, "LORRY_STORIES_DIR names no folder"))
        func storiesModelAndAdaptersAnswerAsTheirGoldens() async throws {
            let folder = URL(filePath: try #require(Self.stories))
            var options = LorryServer.Options()
            options.model = folder.appending(path: "model")
            options.modelName = "stories"
            options.adapters = folder.appending(path: "adapters")
            let goldens = folder.appending(path: "goldens")
            try await LorryServer.run(options) { server in
                let models: ModelList = try await server.client.get("/v1/models").decoded()
                let served = models.data.map(\.id)
                for name in served {
                    let file = name == "stories" ? "_base" : name
                    let answers = try StoriesGolden.read(goldens.appending(path: "\(file).json"))
                    let result = try await check(answers, model: name, server.client)
                    print("\(name): \(result.compared) of \(result.total) tokens compared")
                }
                for line in server.process.standardError.split(separator: "\n")
                where line.contains("adapter refused") {
                    print("not served: \(line)")
                }
                #expect(served.contains { $0.hasPrefix("lora-") })
                #expect(served.contains { $0.hasPrefix("rslora-") })
            }
        }
    }
}
