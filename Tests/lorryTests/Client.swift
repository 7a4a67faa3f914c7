import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix

/// A whole HTTP answer.
struct Reply: Sendable {
    let status: Int
    let headers: HTTPHeaders
    let body: [UInt8]

    var text: String { String(decoding: body, as: UTF8.self) }

    func header(_ name: String) -> String? { headers.first(name: name) }

    func decoded<Value: Decodable>(as type: Value.Type = Value.self) throws -> Value {
        do {
            return try Wire.decoder().decode(type, from: Data(body))
        } catch {
            throw TestFailure("\(status) \(text.prefix(500)): \(error)")
        }
    }
}

/// A server-sent event.
struct ServerEvent: Sendable {
    var name = "message"
    var data = ""
}

/// An HTTP/1.1 client that opens a connection for each request, so that dropping a request closes
/// its connection.
struct Client: Sendable {
    let port: Int
    var key: String?

    typealias Inbound = NIOAsyncChannelInboundStream<HTTPClientResponsePart>.AsyncIterator

    /// Sends a request and lets `read` take as much of the answer as it wants.
    func exchange<Result: Sendable>(
        _ method: HTTPMethod, _ path: String, headers: [(String, String)] = [],
        body: [UInt8] = [],
        _ read: @Sendable (HTTPResponseHead, inout Inbound) async throws -> Result
    ) async throws -> Result {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    return try NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>(
                        wrappingChannelSynchronously: channel)
                }
            }
        var fields = HTTPHeaders([("host", "127.0.0.1:\(port)"), ("connection", "close")])
        fields.add(contentsOf: headers)
        if !body.isEmpty { fields.add(name: "content-length", value: "\(body.count)") }
        if let key { fields.add(name: "authorization", value: "Bearer \(key)") }
        let head = HTTPRequestHead(version: .http1_1, method: method, uri: path, headers: fields)
        var result: Result?
        do {
            try await channel.executeThenClose { inbound, outbound in
                // In one write, and whatever becomes of it: a server may answer, and close, before
                // it has taken everything. The answer counts then.
                let sent: [HTTPClientRequestPart] =
                    [.head(head)]
                    + (body.isEmpty ? [] : [.body(.byteBuffer(ByteBuffer(bytes: body)))])
                    + [.end(nil)]
                try? await outbound.write(contentsOf: sent)
                var parts = inbound.makeAsyncIterator()
                guard case .head(let answer) = try await parts.next() else {
                    throw TestFailure("\(method) \(path): the connection ended without an answer")
                }
                result = try await read(answer, &parts)
            }
        } catch {
            // Closing what the server has closed already is no failure.
            guard result != nil else { throw error }
        }
        guard let result else { throw TestFailure("\(method) \(path): no answer") }
        return result
    }

    func send(
        _ method: HTTPMethod, _ path: String, headers: [(String, String)] = [], body: [UInt8] = []
    ) async throws -> Reply {
        try await exchange(method, path, headers: headers, body: body) { head, parts in
            var bytes: [UInt8] = []
            while let part = try await parts.next() {
                if case .end = part {
                    return Reply(
                        status: Int(head.status.code), headers: head.headers, body: bytes)
                }
                if case .body(let buffer) = part { bytes += buffer.readableBytesView }
            }
            throw TestFailure("\(method) \(path): the answer ended early")
        }
    }

    func get(_ path: String, headers: [(String, String)] = []) async throws -> Reply {
        try await send(.GET, path, headers: headers)
    }

    func post(
        _ path: String, _ value: some Encodable, headers: [(String, String)] = []
    ) async throws -> Reply {
        let body = Array(try Wire.encoder().encode(value))
        return try await send(
            .POST, path, headers: [("content-type", "application/json")] + headers, body: body)
    }

    func complete(_ ask: Ask) async throws -> Completion {
        let reply = try await post("/v1/completions", ask)
        guard reply.status == 200 else { throw TestFailure("\(reply.status) \(reply.text)") }
        return try reply.decoded()
    }

    /// Asks for a stream and hands its events to `take` until that returns false, which closes the
    /// connection, or until the stream ends.
    func stream(
        _ ask: Ask, _ take: @Sendable (ServerEvent) async throws -> Bool
    ) async throws {
        var ask = ask
        ask.stream = true
        let body = Array(try Wire.encoder().encode(ask))
        try await exchange(
            .POST, "/v1/completions", headers: [("content-type", "application/json")], body: body
        ) { head, parts in
            guard head.status == .ok else { throw TestFailure("the stream began with \(head)") }
            var text = ""
            while let part = try await parts.next() {
                if case .end = part { return }
                guard case .body(let buffer) = part else { continue }
                text += String(buffer: buffer)
                while let end = text.range(of: "\n\n") {
                    let event = ServerEvent(text[..<end.lowerBound])
                    text.removeSubrange(..<end.upperBound)
                    guard try await take(event) else { return }
                }
            }
            throw TestFailure("the stream was cut off")
        }
    }

    /// The whole of a stream, with when each token arrived.
    func streamed(_ ask: Ask) async throws -> StreamedAnswer {
        let answer = StreamedAnswer.Recorder()
        try await stream(ask) { event in
            try answer.record(event)
            return true
        }
        return try answer.finished()
    }
}

extension ServerEvent {
    init(_ text: some StringProtocol) {
        for line in text.split(separator: "\n") {
            if line.hasPrefix("event: ") { name = String(line.dropFirst(7)) }
            if line.hasPrefix("data: ") { data += line.dropFirst(6) }
        }
    }
}
