import HTTPTypes
import LorryHTTP
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// Many requests on one HTTP/2 connection (prior knowledge, or ALPN under TLS).
final class HTTP2LoadConnection: LoadConnection, ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private struct Exchange {
        let id: Int
        var hasEnded = false
    }

    private let server: LoadServer
    private let placeCount: Int
    private weak var owner: (any LoadConnectionOwner)?
    private var session: HTTP2Session?
    private var context: ChannelHandlerContext?
    private var exchanges: [Int32: Exchange] = [:]
    private var streams: [Int: Int32] = [:]
    /// Sent before the connection stood.
    private var waiting: [(id: Int, body: ByteBuffer, apiKey: String?)] = []
    private var isFlushing = false
    private(set) var isClosed = false

    init(
        _ server: LoadServer, placeCount: Int, on loop: any EventLoop, tls: NIOSSLContext?,
        owner: any LoadConnectionOwner
    ) {
        self.server = server
        self.placeCount = placeCount
        self.owner = owner
        ClientBootstrap.load(server, on: loop, tls: tls, self) { try $0.addHandler($1) }
            .assumeIsolated().whenFailure { [self] error in end("no connection: \(error)") }
    }

    private var usedPlaceCount: Int { exchanges.count + waiting.count }
    var hasFreePlace: Bool { !isClosed && usedPlaceCount < placeCount }

    func send(_ id: Int, body: ByteBuffer, apiKey: String?) {
        guard session != nil else { return waiting.append((id, body, apiKey)) }
        submit(id, body, apiKey)
        flush()
    }

    private func submit(_ id: Int, _ body: ByteBuffer, _ apiKey: String?) {
        guard let session else { return }
        var request = HTTPRequest(
            method: .post, scheme: server.tls == nil ? "http" : "https",
            authority: server.authority, path: server.pathPrefix + "/v1/completions")
        request.headerFields[.contentType] = "application/json"
        request.headerFields[.contentLength] = "\(body.readableBytes)"
        request.headerFields[.userAgent] = "lorry"
        if let apiKey { request.headerFields[.authorization] = "Bearer \(apiKey)" }
        do {
            let stream = try session.submitRequest(request, endOfStream: false)
            session.appendBody(body, stream: stream)
            session.finishBody(stream: stream)
            exchanges[stream] = Exchange(id: id)
            streams[id] = stream
        } catch {
            owner?.received(.broken("the request could not be sent: \(error)"), for: id)
        }
    }

    func cancel(_ id: Int) {
        waiting.removeAll { $0.id == id }
        guard let stream = streams[id] else { return }
        exchanges[stream]?.hasEnded = true
        session?.reset(stream: stream, code: .cancel)
        flush()
    }

    func close() {
        session?.terminate(code: .noError)
        flush()
        context?.close(promise: nil)
        isClosed = true
    }

    // MARK: channel

    func channelActive(context: ChannelHandlerContext) {
        self.context = context
        var options = HTTP2Options()
        // Answers are small and many: one connection may hold a window for each.
        options.connectionWindow = 16 << 20
        do {
            session = try HTTP2Session(role: .client, options: options, now: .now())
        } catch {
            return end("\(error)")
        }
        for request in waiting { submit(request.id, request.body, request.apiKey) }
        waiting = []
        flush()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        do {
            try session?.receive(unwrapInboundIn(data), now: .now())
            handleEvents()
        } catch {
            handleEvents()
            end("the server broke HTTP/2: \(error)")
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) { flush() }

    func channelWritabilityChanged(context: ChannelHandlerContext) { flush() }

    func channelInactive(context: ChannelHandlerContext) { end("the server closed the connection") }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end("the connection failed: \(error)")
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case TLSUserEvent.handshakeCompleted(let name)? = event as? TLSUserEvent, name != "h2" {
            end("the server does not speak HTTP/2 over TLS")
        }
    }

    private func flush() {
        guard !isFlushing, let context, let session else { return }
        isFlushing = true
        defer { isFlushing = false }
        do {
            while context.channel.isWritable {
                var buffer = context.channel.allocator.buffer(capacity: 1024)
                try session.takeOutput(into: &buffer, limit: 64 * 1024)
                handleEvents()
                guard buffer.readableBytes > 0 else { break }
                context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
            }
        } catch {
            return end("the connection failed: \(error)")
        }
        if !session.isAlive { context.close(promise: nil) }
    }

    private func handleEvents() {
        guard let session else { return }
        for event in session.takeEvents() {
            switch event {
            case .head(let stream, let head, let endOfStream):
                tell(stream, .head(status: head.status ?? 0))
                if endOfStream { finish(stream) }
            case .body(let stream, let bytes):
                session.consume(bytes.readableBytes, stream: stream)
                tell(stream, .body(bytes))
            case .endOfBody(let stream): finish(stream)
            case .closed(let stream, let code, _): closed(stream, code: code)
            default: break
            }
        }
    }

    private func tell(_ stream: Int32, _ event: ExchangeEvent) {
        guard let exchange = exchanges[stream], !exchange.hasEnded else { return }
        owner?.received(event, for: exchange.id)
    }

    private func finish(_ stream: Int32) {
        guard let exchange = exchanges[stream], !exchange.hasEnded else { return }
        exchanges[stream]?.hasEnded = true
        owner?.received(.end, for: exchange.id)
    }

    private func closed(_ stream: Int32, code: UInt32) {
        let hadFreePlace = hasFreePlace
        guard let exchange = exchanges.removeValue(forKey: stream) else { return }
        streams[exchange.id] = nil
        if !hadFreePlace, hasFreePlace { owner?.becameFree(self) }
        guard !exchange.hasEnded else { return }
        owner?.received(.broken("the server reset the stream (code \(code))"), for: exchange.id)
    }

    private func end(_ reason: String) {
        guard !isClosed || !exchanges.isEmpty || !waiting.isEmpty else { return }
        isClosed = true
        let ids = exchanges.values.filter { !$0.hasEnded }.map(\.id) + waiting.map(\.id)
        exchanges = [:]
        streams = [:]
        waiting = []
        session = nil
        context?.close(promise: nil)
        context = nil
        owner?.becameClosed(self)
        for id in ids.sorted() { owner?.received(.broken(reason), for: id) }
    }
}
