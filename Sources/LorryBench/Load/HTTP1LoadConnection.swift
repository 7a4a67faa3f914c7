import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL

/// One request at a time on an HTTP/1.1 connection that is kept for the next.
final class HTTP1LoadConnection: LoadConnection, ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let server: LoadServer
    private weak var owner: (any LoadConnectionOwner)?
    private var context: ChannelHandlerContext?
    private var current: Int?
    private var waiting: (body: ByteBuffer, apiKey: String?)?
    private var keepsAlive = true
    private(set) var isClosed = false
    private var idleSince = NIODeadline.now()
    /// A server may close a connection that is idle; one that was idle this long is not trusted.
    private static let idleLimit = TimeAmount.seconds(20)

    init(
        _ server: LoadServer, on loop: any EventLoop, tls: NIOSSLContext?,
        owner: any LoadConnectionOwner
    ) {
        self.server = server
        self.owner = owner
        ClientBootstrap.load(server, on: loop, tls: tls, self) { pipeline, handler in
            try pipeline.addHTTPClientHandlers()
            try pipeline.addHandler(handler)
        }
        .assumeIsolated().whenFailure { [self] error in end("no connection: \(error)") }
    }

    var hasFreePlace: Bool {
        guard !isClosed, current == nil else { return false }
        return context == nil || NIODeadline.now() - idleSince < Self.idleLimit
    }

    func send(_ id: Int, body: ByteBuffer, apiKey: String?) {
        current = id
        guard let context else {
            waiting = (body, apiKey)
            return
        }
        write(body, apiKey, context)
    }

    private func write(_ body: ByteBuffer, _ apiKey: String?, _ context: ChannelHandlerContext) {
        var headers = HTTPHeaders([
            ("host", server.authority), ("content-type", "application/json"),
            ("content-length", "\(body.readableBytes)"), ("user-agent", "lorry"),
        ])
        if let apiKey { headers.add(name: "authorization", value: "Bearer \(apiKey)") }
        let head = HTTPRequestHead(
            version: .http1_1, method: .POST, uri: server.pathPrefix + "/v1/completions",
            headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    /// HTTP/1.1 has no way but to close the connection.
    func cancel(_ id: Int) {
        guard current == id else { return }
        current = nil
        close()
    }

    func close() {
        isClosed = true
        context?.close(promise: nil)
    }

    // MARK: channel

    func channelActive(context: ChannelHandlerContext) {
        guard !isClosed else { return context.close(promise: nil) }
        self.context = context
        idleSince = .now()
        guard let request = waiting else { return }
        waiting = nil
        write(request.body, request.apiKey, context)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let id = current else { return }
        switch unwrapInboundIn(data) {
        case .head(let head):
            guard head.status.code >= 200 else { return }
            keepsAlive = head.isKeepAlive
            owner?.received(.head(status: Int(head.status.code)), for: id)
        case .body(let bytes): owner?.received(.body(bytes), for: id)
        case .end:
            current = nil
            idleSince = .now()
            if keepsAlive {
                owner?.becameFree(self)
            } else {
                close()
                owner?.becameClosed(self)
            }
            owner?.received(.end, for: id)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        end("the server closed the connection")
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end("the connection failed: \(error)")
    }

    private func end(_ reason: String) {
        let wasClosed = isClosed
        isClosed = true
        context?.close(promise: nil)
        context = nil
        waiting = nil
        if !wasClosed { owner?.becameClosed(self) }
        guard let id = current else { return }
        current = nil
        owner?.received(.broken(reason), for: id)
    }
}
