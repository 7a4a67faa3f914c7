import HTTPTypes
import Hummingbird
import NIOCore

/// One request and the response that its task makes: the task's side of a connection.
final class Exchange: Sendable {
    /// HTTP/2: the stream. HTTP/1.1: the request's ordinal on its connection.
    let id: Int
    let request: HTTPRequest
    /// nil when the request has no body.
    let body: InboundBody?
    let gate: OutboundGate
    private let mailbox: Mailbox

    init(id: Int, request: HTTPRequest, body: InboundBody?, gate: OutboundGate, mailbox: Mailbox) {
        self.id = id
        self.request = request
        self.body = body
        self.gate = gate
        self.mailbox = mailbox
    }

    func post(_ command: ResponseCommand) {
        mailbox.post(command, request: id)
    }

    /// Hands body bytes to the connection, then waits while too many wait for the client.
    func write(_ bytes: ByteBuffer) async throws {
        var bytes = bytes
        while let part = bytes.readSlice(length: min(bytes.readableBytes, 32 * 1024)),
            part.readableBytes > 0
        {
            try gate.add(part.readableBytes)
            post(.body(part))
            try await gate.waitForRoom()
        }
    }

    /// The client is gone.
    func disconnect() {
        gate.close()
        body?.fail(ConnectionClosed())
    }
}

/// Sends one response through an ``Exchange``, and keeps to what its head promised.
///
/// Used by the request's task alone, one call after another.
final class ResponseSender: @unchecked Sendable {
    // Unchecked because Hummingbird's writer must be copyable: only the request's task, which
    // makes one call after another, touches these fields.
    private var head: HTTPResponse?
    private var collected = ByteBuffer()
    private var remaining: Int?
    private(set) var isFinished = false
    private let isBodyless: Bool
    private let exchange: Exchange

    /// Bodies of known length up to this are sent in one step with their head.
    private static let wholeByteCount = 16 * 1024

    init(_ response: HTTPResponse, contentLength: Int?, exchange: Exchange) {
        self.exchange = exchange
        isBodyless =
            exchange.request.method == .head || response.status.code == 204
            || response.status.code == 304
        remaining = isBodyless ? nil : contentLength
        if isBodyless {
            exchange.post(.whole(response, ByteBuffer()))
        } else if let contentLength, contentLength <= Self.wholeByteCount {
            head = response
        } else {
            exchange.post(.head(response))
        }
    }

    func write(_ bytes: ByteBuffer) async throws {
        guard !isBodyless, bytes.readableBytes > 0 else { return }
        if let left = remaining {
            guard bytes.readableBytes <= left else { throw ResponseLengthError() }
            remaining = left - bytes.readableBytes
        }
        if head != nil {
            collected.writeImmutableBuffer(bytes)
        } else {
            try await exchange.write(bytes)
        }
    }

    func finish(_ trailers: HTTPFields?) throws {
        guard !isFinished else { return }
        guard remaining ?? 0 == 0 else { throw ResponseLengthError() }
        isFinished = true
        if isBodyless { return }
        guard let head else { return exchange.post(.end(trailers)) }
        try exchange.gate.add(collected.readableBytes)
        exchange.post(.whole(head, collected))
    }
}

/// A handler wrote more or fewer bytes than its response's `content-length`.
struct ResponseLengthError: Error {}

/// Hummingbird's view of a ``ResponseSender``.
struct ExchangeBodyWriter: ResponseBodyWriter {
    let sender: ResponseSender

    mutating func write(_ buffer: ByteBuffer) async throws {
        try await sender.write(buffer)
    }

    consuming func finish(_ trailingHeaders: HTTPFields?) async throws {
        try sender.finish(trailingHeaders)
    }
}
