import Foundation
import LorryBench
import NIOCore
import Testing

struct RequestWriterTests {
    private struct Body: Decodable {
        let model: String
        let prompt: [Int32]
        let maxTokens: Int
        let temperature: Double
        let ignoreEos: Bool
        let stream: Bool
        let returnTokenIds: Bool
    }

    private func parsed(_ buffer: ByteBuffer) throws -> Body {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Body.self, from: Data(buffer.readableBytesView))
    }

    private func request(
        adapter: Int?, tenant: Int = 0, number: Int = 0, promptTokens: Int = 6
    ) -> NumberedRequest {
        NumberedRequest(
            TraceRequest(
                arrivalSeconds: 0, adapter: adapter, tenant: tenant,
                promptTokenCount: promptTokens, outputTokenCount: 9), number: number)
    }

    private func writer(prefix: Int = 0, seed: UInt64 = 3) throws -> RequestWriter {
        try RequestWriter(
            baseModel: "ba\"se", adapters: ["a", "b\\ü"], vocabularySize: 50,
            sharedPrefixTokenCount: prefix, seed: seed)
    }

    @Test func bodiesAreWhatTheServerReads() throws {
        let body = try parsed(writer().body(of: request(adapter: 1)))
        #expect(body.model == "b\\ü")
        #expect(body.prompt.count == 6)
        #expect(body.prompt.allSatisfy { (0..<50).contains($0) })
        #expect(body.maxTokens == 9)
        #expect(body.temperature == 0)
        #expect(body.ignoreEos && body.stream && body.returnTokenIds)
        #expect(try parsed(writer().body(of: request(adapter: nil))).model == "ba\"se")
    }

    @Test func promptsDependOnSeedTenantAndNumber() throws {
        func tokens(_ seed: UInt64, _ tenant: Int, _ number: Int) throws -> [Int32] {
            try writer(seed: seed).promptTokens(
                of: request(adapter: 0, tenant: tenant, number: number, promptTokens: 40))
        }
        #expect(try tokens(1, 0, 0) == tokens(1, 0, 0))
        let others = try [tokens(1, 0, 0), tokens(2, 0, 0), tokens(1, 1, 0), tokens(1, 0, 1)]
        #expect(Set(others).count == 4)
    }

    @Test func promptsShareTheirPrefix() throws {
        let writer = try writer(prefix: 10)
        let long = (0..<4).map {
            writer.promptTokens(of: request(adapter: $0 % 2, number: $0, promptTokens: 30))
        }
        #expect(Set(long.map { Array($0.prefix(10)) }).count == 1)
        #expect(Set(long).count == 4)
        let short = writer.promptTokens(of: request(adapter: 0, promptTokens: 4))
        #expect(short == Array(long[0].prefix(4)))
    }
}
