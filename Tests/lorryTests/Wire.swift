import Foundation
import Synchronization

/// What the tests say and read in JSON.
enum Wire {
    static func encoder() -> JSONEncoder {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return encoder
    }

    static func decoder() -> JSONDecoder {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return decoder
    }
}

enum Prompt: Encodable, Sendable {
    case text(String)
    case tokens([Int])

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .text(let text): try container.encode(text)
        case .tokens(let ids): try container.encode(ids)
        }
    }
}

/// A completions request: greedy, of an exact length, and with its token ids told.
struct Ask: Encodable, Sendable {
    var model: String
    var prompt: Prompt
    var maxTokens: Int
    var temperature = 0.0
    var ignoreEos = true
    var returnTokenIds = true
    var addSpecialTokens = true
    var stream = false
    var logprobs: Int?
    var returnTokensAsTokenIds: Bool?
    var seed: Int?

    init(_ model: String, _ prompt: Prompt, _ maxTokens: Int) {
        self.model = model
        self.prompt = prompt
        self.maxTokens = maxTokens
    }
}

struct Completion: Decodable, Sendable {
    struct Choice: Decodable, Sendable {
        let text: String
        let finishReason: String?
        let tokenIds: [Int]?
        let promptTokenIds: [Int]?
    }

    struct Usage: Decodable, Sendable {
        let promptTokens: Int
        let completionTokens: Int
    }

    let choices: [Choice]
    let usage: Usage?

    func choice() throws -> Choice {
        guard let first = choices.first else { throw TestFailure("an answer without a choice") }
        return first
    }
}

struct Failure: Decodable, Sendable {
    struct Body: Decodable, Sendable {
        let message: String
        let type: String
        let param: String?
    }

    let error: Body
}

struct AdapterAnswer: Decodable, Sendable {
    let name: String
    let version: String
    let state: String
}

struct ModelList: Decodable, Sendable {
    struct Card: Decodable, Sendable {
        let id: String
        let parent: String?
    }

    let data: [Card]
}

/// A stream as its client saw it.
struct StreamedAnswer: Sendable {
    var tokenIDs: [Int] = []
    var text = ""
    var finishReason: String?
    var arrivals: [ContinuousClock.Instant] = []
    var isDone = false

    var gaps: [Duration] { zip(arrivals.dropFirst(), arrivals).map { $0 - $1 } }

    final class Recorder: Sendable {
        private let answer = Mutex(StreamedAnswer())

        var tokenCount: Int { answer.withLock { $0.tokenIDs.count } }

        func record(_ event: ServerEvent) throws {
            let now = ContinuousClock.now
            guard event.name == "message" else { throw TestFailure("in a stream: \(event.data)") }
            if event.data == "[DONE]" { return answer.withLock { $0.isDone = true } }
            let chunk = try Wire.decoder().decode(Completion.self, from: Data(event.data.utf8))
            guard let choice = chunk.choices.first else { return }
            answer.withLock {
                $0.tokenIDs += choice.tokenIds ?? []
                $0.text += choice.text
                $0.finishReason = choice.finishReason ?? $0.finishReason
                $0.arrivals.append(now)
            }
        }

        func finished() throws -> StreamedAnswer {
            let answer = answer.withLock { $0 }
            guard answer.isDone else { throw TestFailure("the stream ended without [DONE]") }
            return answer
        }
    }
}
