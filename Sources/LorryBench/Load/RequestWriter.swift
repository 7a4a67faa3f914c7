import Foundation
import NIOCore

/// Writes the bodies of a run's requests.
///
/// A prompt depends on the seed, its tenant and the request's number among that tenant's, and on
/// nothing else, so that it is the same in a run of that tenant alone.
package struct RequestWriter: Sendable {
    private let baseModel: [UInt8]
    private let adapters: [[UInt8]]
    private let vocabularySize: Int
    private let sharedPrefix: [Int32]
    private let seed: UInt64

    /// - Parameters:
    ///   - adapters: names of the adapters, by their number in the trace.
    ///   - vocabularySize: prompts are of token ids below it; at least 1.
    ///   - sharedPrefixTokenCount: tokens with which every prompt begins, as far as it is so long.
    package init(
        baseModel: String, adapters: [String], vocabularySize: Int,
        sharedPrefixTokenCount: Int = 0, seed: UInt64
    ) throws {
        self.baseModel = try Self.quoted(baseModel)
        self.adapters = try adapters.map(Self.quoted)
        self.vocabularySize = max(1, vocabularySize)
        self.seed = seed
        var numbers = SeededNumbers(seed: seed, path: Purpose.sharedPrefix.rawValue)
        let ids = 0...(self.vocabularySize - 1)
        sharedPrefix = (0..<sharedPrefixTokenCount).map { _ in Int32(numbers.integer(in: ids)) }
    }

    private static func quoted(_ text: String) throws -> [UInt8] {
        Array(try JSONEncoder().encode(text))
    }

    package func promptTokens(of request: NumberedRequest) -> [Int32] {
        let count = request.request.promptTokenCount
        var numbers = SeededNumbers(
            seed: seed, path: UInt64(request.request.tenant), Purpose.promptTokens.rawValue,
            UInt64(request.number))
        var tokens = Array(sharedPrefix.prefix(count))
        let ids = 0...(vocabularySize - 1)
        while tokens.count < count { tokens.append(Int32(numbers.integer(in: ids))) }
        return tokens
    }

    /// JSON for `POST /v1/completions`: greedy, of exactly the asked length, streamed, with the
    /// tokens' ids.
    package func body(of request: NumberedRequest) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeString("{\"model\":")
        let adapter = request.request.adapter
        buffer.writeBytes(
            adapter.flatMap { adapters.indices.contains($0) ? adapters[$0] : nil } ?? baseModel)
        let prompt = promptTokens(of: request).map(String.init).joined(separator: ",")
        buffer.writeString(",\"prompt\":[\(prompt)]")
        buffer.writeString(
            """
            ,"max_tokens":\(request.request.outputTokenCount),"temperature":0,"ignore_eos":true,\
            "stream":true,"stream_options":{"include_usage":true},"return_token_ids":true}
            """)
        return buffer
    }
}

/// A request with its number among those of its tenant, counted from 0.
public struct NumberedRequest: Sendable, Equatable {
    public var request: TraceRequest
    public var number: Int

    public init(_ request: TraceRequest, number: Int) {
        self.request = request
        self.number = number
    }

    public static func numbered(_ trace: [TraceRequest]) -> [NumberedRequest] {
        var counts: [Int: Int] = [:]
        return trace.map { request in
            defer { counts[request.tenant, default: 0] += 1 }
            return NumberedRequest(request, number: counts[request.tenant, default: 0])
        }
    }
}
