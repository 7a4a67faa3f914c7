import Foundation
import NIOHTTP1

/// What a server says of itself: its base model, and the adapters that may be asked.
struct ServedModels: Sendable {
    let base: String
    /// In the order of their names.
    let adapters: [String]
    let adapterPrefix: String
    let maximumLength: Int?
    let vocabularySize: Int

    private struct List: Decodable {
        struct Card: Decodable {
            let id: String
            let parent: String?
            let maximumLength: Int?

            enum CodingKeys: String, CodingKey {
                case id, parent
                case maximumLength = "max_model_len"
            }
        }
        let data: [Card]
    }

    /// - Throws: `ClientError` where the server is not there, or does not tell what is needed.
    static func ask(
        _ client: ServerClient, model: String?, adapterPrefix: String, vocabularySize: Int?
    ) async throws -> ServedModels {
        let list = try await client.send(.init(path: "/v1/models")).checked().decoded(List.self)
        guard
            let base = list.data.first(where: {
                model.map($0.id.elementsEqual) ?? ($0.parent == nil)
            })
        else {
            throw ClientError(
                model.map { "the server has no model '\($0)'" } ?? "the server names no base model")
        }
        let adapters = list.data.filter { $0.parent != nil && $0.id.hasPrefix(adapterPrefix) }
            .map(\.id).sorted()
        var size = vocabularySize
        if size == nil { size = try await askVocabularySize(client, base.id) }
        return ServedModels(
            base: base.id, adapters: adapters, adapterPrefix: adapterPrefix,
            maximumLength: base.maximumLength, vocabularySize: size ?? 1)
    }

    /// Servers do not tell it but in the refusal of a token that is outside.
    private static func askVocabularySize(
        _ client: ServerClient, _ model: String
    ) async throws -> Int {
        struct Body: Encodable {
            let model: String
            let prompt = [Int32.max]
            let maximumTokenCount = 1

            enum CodingKeys: String, CodingKey {
                case model, prompt
                case maximumTokenCount = "max_tokens"
            }
        }
        let answer = try await client.send(.json(.POST, "/v1/completions", Body(model: model)))
        let failure = answer.failure
        if let match = failure.firstMatch(of: /vocabulary of ([0-9]+) tokens/),
            let size = Int(match.1), size > 0
        {
            return size
        }
        throw ClientError(
            "the server does not tell its vocabulary's size: --vocabulary-size is needed (asked, "
                + "it says: \(failure))")
    }

    /// - Throws: `ClientError` with the numbers where there are fewer.
    func adapters(first count: Int) throws(ClientError) -> [String] {
        guard count <= adapters.count else {
            let whose = adapterPrefix.isEmpty ? "" : " whose names begin with '\(adapterPrefix)'"
            throw ClientError(
                "--adapters: \(count) are to be asked, and the server has \(adapters.count)\(whose)"
            )
        }
        return Array(adapters.prefix(count))
    }

    /// - Throws: `ClientError` where the longest request does not fit the model.
    func check(longest: Int) throws(ClientError) {
        guard let maximumLength, longest > maximumLength else { return }
        throw ClientError(
            "requests of up to \(longest) tokens, prompt and answer together, do not fit the "
                + "server's context of \(maximumLength): --prompt-tokens, --output-tokens")
    }
}
