import Foundation
import NIOCore

/// What a piece of a streamed answer said.
package enum AnswerEvent: Sendable, Equatable {
    /// Tokens that came together; ids are empty where the server tells none.
    case tokens(count: Int, ids: [Int32])
    case usage(outputTokenCount: Int, cachedPromptTokenCount: Int)
    /// The server's words for a failure inside the stream.
    case failure(String)
    /// `data: [DONE]`.
    case done
}

/// Reads a completion's server-sent events, bytes in and events out, whatever pieces they come in.
///
/// Events that only bring tokens, nearly all of them, are scanned without making a JSON document,
/// since the measuring program shares its cores with the measured one.
package struct AnswerReader: Sendable {
    private var pending: [UInt8] = []
    private var skipsLine = false
    /// A line longer than this is no event of a completion.
    private static let maximumLineByteCount = 4 << 20

    package init() {}

    package mutating func append(_ bytes: ByteBufferView) -> [AnswerEvent] {
        var events: [AnswerEvent] = []
        for part in bytes.split(separator: 0x0A, omittingEmptySubsequences: false).enumerated() {
            if part.offset > 0 {
                if !skipsLine, let event = Self.event(of: pending) { events.append(event) }
                pending.removeAll(keepingCapacity: true)
                skipsLine = false
            }
            guard !skipsLine else { continue }
            if pending.count + part.element.count > Self.maximumLineByteCount {
                skipsLine = true
                pending = []
                events.append(.failure("an event of more than \(Self.maximumLineByteCount) bytes"))
            } else {
                pending += part.element
            }
        }
        return events
    }

    private static let dataPrefix = Array("data:".utf8)
    private static let done = Array("[DONE]".utf8)

    private static func event(of line: [UInt8]) -> AnswerEvent? {
        guard line.starts(with: dataPrefix) else { return nil }
        var data = line[dataPrefix.count...].drop { $0 == 0x20 }
        if data.last == 0x0D { data.removeLast() }
        if data.elementsEqual(done) { return .done }
        if let ids = ChunkScanner(data).tokenIDs() {
            return ids.isEmpty ? nil : .tokens(count: ids.count, ids: ids)
        }
        return parsed(Data(data))
    }

    private struct Chunk: Decodable {
        struct Choice: Decodable {
            let text: String?
            let tokenIDs: [Int32]?

            enum CodingKeys: String, CodingKey {
                case text
                case tokenIDs = "token_ids"
            }
        }
        struct Usage: Decodable {
            struct Details: Decodable {
                let cachedTokens: Int?
                enum CodingKeys: String, CodingKey { case cachedTokens = "cached_tokens" }
            }
            let completionTokens: Int?
            let details: Details?

            enum CodingKeys: String, CodingKey {
                case completionTokens = "completion_tokens"
                case details = "prompt_tokens_details"
            }
        }
        struct Failure: Decodable { let message: String? }
        let choices: [Choice]?
        let usage: Usage?
        let error: Failure?
    }

    private static func parsed(_ data: Data) -> AnswerEvent? {
        guard let chunk = try? JSONDecoder().decode(Chunk.self, from: data) else {
            return .failure("an event that is not JSON of a completion")
        }
        if let error = chunk.error {
            return .failure(error.message ?? "an error without a message")
        }
        if let choice = chunk.choices?.first {
            if let ids = choice.tokenIDs {
                return ids.isEmpty ? nil : .tokens(count: ids.count, ids: ids)
            }
            return choice.text?.isEmpty == false ? .tokens(count: 1, ids: []) : nil
        }
        guard let usage = chunk.usage, let count = usage.completionTokens else { return nil }
        return .usage(
            outputTokenCount: count, cachedPromptTokenCount: usage.details?.cachedTokens ?? 0)
    }
}

/// Finds the token ids of a chunk that has nothing else to tell.
struct ChunkScanner {
    private let bytes: ArraySlice<UInt8>
    private static let reason = Array("\"finish_reason\"".utf8)
    private static let null = Array("null".utf8)
    private static let ids = Array("\"token_ids\"".utf8)

    init(_ bytes: ArraySlice<UInt8>) { self.bytes = bytes }

    /// Nil where the answer may end with this chunk, or where it is not of the usual form: then it
    /// has to be read as JSON.
    ///
    /// Inside a JSON string quotes are escaped, so that what is found is a key.
    func tokenIDs() -> [Int32]? {
        guard let reason = valueStart(of: Self.reason), bytes[reason...].starts(with: Self.null),
            let start = valueStart(of: Self.ids), bytes[start] == UInt8(ascii: "[")
        else { return nil }
        var ids: [Int32] = []
        var value: Int32?
        for byte in bytes[(start + 1)...] {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                let (tens, tooLarge) = (value ?? 0).multipliedReportingOverflow(by: 10)
                let (sum, overflows) = tens.addingReportingOverflow(Int32(byte) - 48)
                if tooLarge || overflows { return nil }
                value = sum
            case UInt8(ascii: ","), UInt8(ascii: "]"):
                if let value { ids.append(value) }
                if byte == UInt8(ascii: "]") { return ids }
                if value == nil { return nil }
                value = nil
            case 0x20: continue
            default: return nil
            }
        }
        return nil
    }

    /// Where the value of the first member with this quoted name begins.
    private func valueStart(of name: [UInt8]) -> Int? {
        var index = bytes.startIndex
        while let quote = bytes[index...].firstIndex(of: UInt8(ascii: "\"")) {
            index = quote + 1
            guard bytes[quote...].starts(with: name) else { continue }
            let rest = bytes[(quote + name.count)...].drop { $0 == 0x20 }
            guard rest.first == UInt8(ascii: ":") else { continue }
            let value = rest.dropFirst().drop { $0 == 0x20 }
            return value.isEmpty ? nil : value.startIndex
        }
        return nil
    }
}
