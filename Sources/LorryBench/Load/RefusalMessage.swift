import Foundation

/// A server's own words in the body of a refusal, in OpenAI's form.
enum RefusalMessage {
    private struct Body: Decodable {
        struct Failure: Decodable { let message: String }
        let error: Failure
    }

    /// Numbers become `#`, so that refusals which differ in them alone are counted together.
    static func text(of body: [UInt8]) -> String? {
        guard let parsed = try? JSONDecoder().decode(Body.self, from: Data(body)) else {
            return nil
        }
        return parsed.error.message.replacing(/[0-9]+/, with: "#")
    }
}
