import Foundation
import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import Testing

/// A call as a peer's documentation or client sends it, with what it is answered.
struct DocumentedCall: Sendable, CustomTestStringConvertible {
    let path: String
    let body: String
    let status: Int
    /// The whole body.
    let answer: String

    init(_ path: String, _ body: String, status: Int = 200, _ answer: String) {
        self.path = path
        self.body = body
        self.status = status
        self.answer = answer
    }

    var testDescription: String { "\(path) \(body)" }

    func check(on server: TestServer) async throws {
        let found = try await server.post(path, body)
        #expect(found.status == status, "\(found.body)")
        #expect(found.body == answer)
    }
}

/// A field that would change the answer and is not served: refused by its name.
struct RefusedField: Sendable, CustomTestStringConvertible {
    /// Members beside the prompt.
    let json: String
    let words: String

    init(_ json: String, _ words: String) {
        self.json = json
        self.words = words
    }

    var testDescription: String { json }
}

/// A folder below which `lora_path` may point, with an adapter in the folder `one` whose weights
/// are the given text.
final class AdapterRoot: Sendable {
    let url: URL

    init(weights: String = "w") throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent(
            "lorry-roots-\(UUID().uuidString)")
        let source = url.appendingPathComponent("one")
        try FileManager.default.createDirectory(at: source, withIntermediateDirectories: true)
        for (name, content) in AdminTests.files(weights) {
            try content.write(
                to: source.appendingPathComponent(name), atomically: true, encoding: .utf8)
        }
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    var adapterPath: String { url.appendingPathComponent("one").path }
}

extension FakeEngine {
    /// Says another text through an adapter: what the last request ran on.
    static func sayingWhichAdapter() -> FakeEngine {
        FakeEngine { request in
            Script(tokens: TestTokenizer.tokens(request.adapter?.name ?? "base"))
        }
    }
}
