import Hummingbird
import Logging
import NIOCore

/// How a request reached the server.
public enum HTTPProtocolVersion: String, Sendable, CaseIterable {
    case http1 = "HTTP/1.1"
    case http2 = "HTTP/2"
}

/// What an ``HTTPServer`` knows of a request besides the request itself.
public struct HTTPRequestSource: RequestContextSource, Sendable {
    public let logger: Logger
    public let peerAddress: SocketAddress?
    public let protocolVersion: HTTPProtocolVersion
    public let isSecure: Bool
    /// The client's `x-request-id`, or one made here.
    public let requestID: String

    public init(
        logger: Logger, requestID: String, peerAddress: SocketAddress? = nil,
        protocolVersion: HTTPProtocolVersion = .http1, isSecure: Bool = false
    ) {
        var logger = logger
        // Hummingbird's `RequestContext.id` reads this key.
        logger[metadataKey: "hb.request.id"] = .string(requestID)
        self.logger = logger
        self.requestID = requestID
        self.peerAddress = peerAddress
        self.protocolVersion = protocolVersion
        self.isSecure = isSecure
    }
}

/// The request context of Lorry's routes.
public struct LorryRequestContext: RequestContext {
    public typealias Source = HTTPRequestSource

    public var coreContext: CoreRequestContextStorage
    public let peerAddress: SocketAddress?
    public let protocolVersion: HTTPProtocolVersion
    public let isSecure: Bool
    /// Sent back as `x-request-id`, and in the metadata of every log line of `logger`.
    public let requestID: String

    public init(source: HTTPRequestSource) {
        coreContext = CoreRequestContextStorage(source: source)
        peerAddress = source.peerAddress
        protocolVersion = source.protocolVersion
        isSecure = source.isSecure
        requestID = source.requestID
    }
}
