import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// Carries out an ``HTTP2Session`` on a channel: bytes to and from the socket, a task per stream.
final class HTTP2Handler: ChannelInboundHandler, ResponseCommandReceiver {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// A request that came over HTTP/1.1 with `Upgrade: h2c` and becomes stream 1.
    struct Upgrade {
        let request: HTTPRequest
        let settings: [UInt8]
    }

    let settings: ConnectionSettings
    let peer: ConnectionPeer
    let upgrade: Upgrade?
    var session: HTTP2Session?
    let mailbox: Mailbox
    var context: ChannelHandlerContext?
    var running: [Int32: RunningRequest] = [:]
    /// Tasks that have not ended, those of closed streams included.
    var taskCount = 0
    var isDraining = false
    var isFlushing = false
    /// The client's fault ends the connection: GOAWAY goes out and nothing more is read.
    var isCutOff = false
    var isLingering = false
    /// The frame that the client was inside when this was last looked at, and since when.
    var unfinishedFrame: (ordinal: Int, since: NIODeadline)?
    var idleSince = NIODeadline.now()
    var unwritableSince: NIODeadline?
    var ticker: RepeatedTask?

    init(
        settings: ConnectionSettings, peer: ConnectionPeer, eventLoop: any EventLoop,
        upgrade: Upgrade? = nil
    ) {
        self.settings = settings
        self.peer = peer
        self.upgrade = upgrade
        mailbox = Mailbox(eventLoop: eventLoop)
    }

    // MARK: channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        mailbox.setReceiver(self)
        settings.metrics.connectionOpened(.http2)
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        let tick = settings.tick
        ticker = context.eventLoop.scheduleRepeatedTask(initialDelay: tick, delay: tick) { _ in
            bound.value.look(elapsed: tick)
        }
        do {
            let session = try HTTP2Session(
                role: .server, options: HTTP2Options(settings.limits), now: .now())
            self.session = session
            if let upgrade {
                try session.upgrade(
                    settings: upgrade.settings, isHead: upgrade.request.method == .head)
                begin(upgrade.request, stream: 1, endOfStream: true)
            }
            flush()
        } catch {
            close(because: error)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        end()
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let session, !isLingering else { return }
        do {
            try session.receive(unwrapInboundIn(data), now: .now())
            handleEvents()
        } catch {
            note(error)
            handleEvents()
            settings.metrics.refused(.protocolError)
            isCutOff = true
            flush()
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        flush()
        context.fireChannelReadComplete()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        unwritableSince = context.channel.isWritable ? nil : .now()
        flush()
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case is DrainEvent: drain(context)
        case is DrainDeadline:
            for request in running.values { request.failUnfinishedBody() }
        case ChannelEvent.inputClosed: context.close(promise: nil)
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close(because: error)
    }

    func close(because error: any Error) {
        note(error)
        context?.close(promise: nil)
    }

    func note(_ error: any Error) {
        settings.logger.debug(
            "connection ended",
            metadata: ["error": "\(error)", "peer": "\(peer.address?.description ?? "unknown")"])
    }

    /// Leaves the client half a second to read why it was cut off, and reads nothing of it: closing
    /// at once could destroy the GOAWAY on its way (RFC 9112 §9.6 tells how).
    func linger() {
        guard let context, !isLingering else { return }
        isLingering = true
        abandonAll()
        context.channel.setOption(.autoRead, value: false).whenFailure { _ in }
        if !peer.isSecure { context.close(mode: .output, promise: nil) }
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .milliseconds(500)) {
            bound.value.context?.close(promise: nil)
        }
    }

    func abandonAll() {
        for request in running.values {
            settings.metrics.reset(.disconnect)
            request.abandon()
        }
        running = [:]
    }

    /// The connection is gone: so are its requests.
    func end() {
        guard context != nil else { return }
        context = nil
        ticker?.cancel()
        mailbox.setReceiver(nil)
        settings.metrics.connectionClosed(.http2)
        abandonAll()
        session = nil
    }

    // MARK: from the client

    func handleEvents() {
        guard let session else { return }
        for event in session.takeEvents() { handle(event, session) }
    }

    func handle(_ event: HTTP2Event, _ session: HTTP2Session) {
        switch event {
        case .head(let stream, let head, let endOfStream):
            guard let request = head.request else {
                return session.reset(stream: stream, code: .protocolError)
            }
            begin(request, stream: stream, endOfStream: endOfStream)
        case .oversizedHead(let stream, let method):
            refuse(
                stream, .requestHeaderFieldsTooLarge, "The request's header is too large",
                .headersTooLarge, isHead: method == "HEAD")
        case .body(let stream, let bytes):
            guard running[stream]?.exchange.body != nil else {
                return session.consume(bytes.readableBytes, stream: stream)
            }
            running[stream]?.pace.received(bytes.readableBytes)
            if running[stream]?.exchange.body?.push(bytes) == false {
                settings.metrics.refused(.bodyTooLarge)
            }
        case .endOfBody(let stream):
            running[stream]?.isReceived = true
            running[stream]?.exchange.body?.finish()
            release(stream)
        case .bodySent(let stream, let byteCount):
            running[stream]?.exchange.gate.release(byteCount)
        case .messageSent(let stream):
            finish(stream)
            if !session.isRemoteClosed(stream: stream) {
                session.reset(stream: stream, code: .noError)
            }
        case .closed(let stream, _, let byPeer):
            guard let request = finish(stream) else { return }
            if byPeer { settings.metrics.reset(.client) }
            request.abandon()
        case .resetByProtocolError:
            settings.metrics.reset(.protocolError)
        case .pingAcknowledged:
            if isDraining { session.refuseNewStreams() }
        case .connectionError:
            isCutOff = true
            settings.metrics.refused(.protocolError)
        case .abuse(let kind):
            isCutOff = true
            settings.metrics.refused(Refusal(kind))
            settings.logger.debug(
                "connection ended for flooding",
                metadata: ["kind": "\(kind.rawValue)", "peer": "\(peer.address as Any)"])
        }
    }

    @discardableResult
    func finish(_ stream: Int32) -> RunningRequest? {
        let request = running.removeValue(forKey: stream)
        if running.isEmpty { idleSince = .now() }
        return request
    }

    func begin(_ request: HTTPRequest, stream: Int32, endOfStream: Bool) {
        guard let session else { return }
        // A client may send it again elsewhere (RFC 9113 §8.7).
        guard !isDraining else {
            settings.metrics.refused(.draining)
            settings.metrics.reset(.refused)
            return session.reset(stream: stream, code: .refusedStream)
        }
        let isHead = request.method == .head
        guard let path = request.path, request.method != .connect else {
            return refuse(stream, .notImplemented, "CONNECT is not served", .badRequest)
        }
        guard path.utf8.count <= settings.limits.uriByteCount else {
            return refuse(
                stream, .uriTooLong, "The request target is too long", .uriTooLong, isHead: isHead)
        }
        // Tasks of streams that were reset may still be ending; a client that opens and resets
        // must not pile them up.
        guard taskCount < 2 * settings.limits.concurrentStreamCount else {
            settings.metrics.refused(.streams)
            settings.metrics.reset(.refused)
            return session.reset(stream: stream, code: .refusedStream)
        }
        let limit = settings.bodyLimit(of: request)
        if let length = request.headerFields[.contentLength].flatMap({ Int($0) }), length > limit {
            return refuse(
                stream, .contentTooLarge, "The request body is over its limit of \(limit) bytes",
                .bodyTooLarge, isHead: isHead)
        }
        let exchange = makeExchange(
            request, stream: stream, hasBody: !endOfStream, limit: limit)
        taskCount += 1
        running[stream] = RunningRequest(
            exchange: exchange, task: settings.start(exchange, peer: peer),
            expectsContinue: request.headerFields[.expect]?.lowercased() == "100-continue",
            isReceived: endOfStream)
    }

    func makeExchange(
        _ request: HTTPRequest, stream: Int32, hasBody: Bool, limit: Int
    ) -> Exchange {
        let mailbox = mailbox
        let id = Int(stream)
        let body =
            hasBody
            ? InboundBody(
                byteLimit: limit,
                onFirstAsk: { mailbox.post(.bodyWanted, request: id) },
                onConsume: { mailbox.post(.consumed($0), request: id) })
            : nil
        return Exchange(
            id: id, request: request, body: body,
            gate: OutboundGate(settings.limits), mailbox: mailbox)
    }

    func refuse(
        _ stream: Int32, _ status: HTTPResponse.Status, _ message: String, _ reason: Refusal,
        isHead: Bool = false
    ) {
        settings.metrics.refused(reason)
        let (head, body) = Refusals.parts(
            status, message, serverName: settings.service.serverName)
        send(head, isHead ? ByteBuffer() : body, stream: stream)
    }

    // MARK: to the socket

    /// Sends what the session has, as long as the socket takes it.
    func flush() {
        guard !isFlushing, let context else { return }
        isFlushing = true
        defer { isFlushing = false }
        do {
            while let session, context.channel.isWritable {
                var buffer = context.channel.allocator.buffer(capacity: 4096)
                try session.takeOutput(into: &buffer, limit: 64 * 1024)
                handleEvents()
                guard buffer.readableBytes > 0 else { break }
                context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
            }
        } catch {
            close(because: error)
        }
        guard let session else { return }
        if isCutOff {
            linger()
        } else if !session.isAlive {
            context.close(promise: nil)
        } else if session.queuedFrameCount > 4 * settings.limits.concurrentStreamCount + 1000 {
            settings.metrics.refused(.flood)
            context.close(promise: nil)
        }
    }
}
