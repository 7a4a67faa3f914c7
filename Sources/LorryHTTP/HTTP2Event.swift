import HTTPTypes
import NIOCore

/// A message head as HPACK brought it: pseudo-header fields apart from the others.
package struct HTTP2Head: Sendable {
    package var method: String?
    package var scheme: String?
    package var authority: String?
    package var path: String?
    package var status: Int?
    /// A `host` field, which stands in for a missing `:authority`.
    package var host: String?
    package var fields = HTTPFields()

    package init() {}

    /// The request that this head asks for; nil when a name or the method is no token.
    ///
    /// nghttp2 has already checked what RFC 9113 §8.3 asks of a request's pseudo-header fields.
    package var request: HTTPRequest? {
        guard let method, let method = HTTPRequest.Method(rawValue: method) else { return nil }
        return HTTPRequest(
            method: method, scheme: scheme, authority: authority ?? host, path: path,
            headerFields: fields)
    }
}

/// Error codes of RST_STREAM and GOAWAY that are used here (RFC 9113 §7).
package enum HTTP2ErrorCode: UInt32, Sendable {
    case noError = 0
    case protocolError = 1
    case internalError = 2
    case streamClosed = 5
    case refusedStream = 7
    case cancel = 8
    case enhanceYourCalm = 11
}

/// What happened in an ``HTTP2Session`` while bytes came in or went out, in order.
package enum HTTP2Event: Sendable {
    case head(stream: Int32, HTTP2Head, endOfStream: Bool)
    /// The head broke the session's bounds and was dropped; the stream waits for an answer.
    case oversizedHead(stream: Int32, method: String?)
    case body(stream: Int32, ByteBuffer)
    case endOfBody(stream: Int32)
    /// Bytes left the stream's outbound buffer for a DATA frame.
    case bodySent(stream: Int32, byteCount: Int)
    /// The last frame of our message went out.
    case messageSent(stream: Int32)
    /// The stream is gone. `byPeer` when an RST_STREAM of the peer ended it.
    case closed(stream: Int32, code: UInt32, byPeer: Bool)
    /// nghttp2 reset a stream because of what the peer did on it.
    case resetByProtocolError(stream: Int32)
    case pingAcknowledged
    /// The peer broke the protocol in a way that ends the connection with GOAWAY.
    case connectionError
    /// The peer overspent; the session is ending with GOAWAY(ENHANCE_YOUR_CALM).
    case abuse(AbuseBudget.Kind)
}

/// The session cannot go on; what it still had to send (GOAWAY, mostly) can be taken from it.
package struct HTTP2SessionError: Error, CustomStringConvertible {
    package let code: Int
    package let message: String
    package var description: String { message }
}

/// What an ``HTTP2Session`` allows its peer.
package struct HTTP2Options: Sendable {
    package var concurrentStreamCount = 128
    package var headerByteCount = 32 * 1024
    package var headerFieldCount = 100
    /// Unread body bytes that one stream and the whole connection may hold.
    package var streamWindow = 256 * 1024
    package var connectionWindow = 1024 * 1024
    package var abuse = AbuseBudget.Allowances()

    package init() {}

    package init(_ limits: HTTPLimits) {
        concurrentStreamCount = limits.concurrentStreamCount
        headerByteCount = limits.headerByteCount
        headerFieldCount = limits.headerFieldCount
        abuse = limits.abuse
    }
}
