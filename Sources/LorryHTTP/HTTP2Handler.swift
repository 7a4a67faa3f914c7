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
    private let upgrade: Upgrade?
    private var session: HTTP2Session?
    private let mailbox: Mailbox
    private var context: ChannelHandlerContext?
    private var running: [Int32: RunningRequest] = [:]
    /// Tasks that have not ended, those of closed streams included.
    private var taskCount = 0
    private var isDraining = false
    private var isFlushing = false
    /// The client's fault ends the connection: GOAWAY goes out and nothing more is read.
    private var isCutOff = false
    private var isLingering = false
    /// The frame that the client was inside when this was last looked at, and since when.
    private var unfinishedFrame: (ordinal: Int, since: NIODeadline)?
    private var idleSince = NIODeadline.now()
    private var unwritableSince: NIODeadline?
    private var ticker: RepeatedTask?

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

    private func close(because error: any Error) {
        note(error)
        context?.close(promise: nil)
    }

    private func note(_ error: any Error) {
        settings.logger.debug(
            "connection ended",
            metadata: ["error": "\(error)", "peer": "\(peer.address?.description ?? "unknown")"])
    }

    /// Leaves the client half a second to read why it was cut off, and reads nothing of it: closing
    /// at once could destroy the GOAWAY on its way (RFC 9112 §9.6 tells how).
    private func linger() {
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

    private func abandonAll() {
        for request in running.values {
            settings.metrics.reset(.disconnect)
            request.abandon()
        }
        running = [:]
    }

    /// The connection is gone: so are its requests.
    private func end() {
        guard context != nil else { return }
        context = nil
        ticker?.cancel()
        mailbox.setReceiver(nil)
        settings.metrics.connectionClosed(.http2)
        abandonAll()
        session = nil
    }

    // MARK: from the client

    private func handleEvents() {
        guard let session else { return }
        for event in session.takeEvents() { handle(event, session) }
    }

    private func handle(_ event: HTTP2Event, _ session: HTTP2Session) {
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
    private func finish(_ stream: Int32) -> RunningRequest? {
        let request = running.removeValue(forKey: stream)
        if running.isEmpty { idleSince = .now() }
        return request
    }

    private func begin(_ request: HTTPRequest, stream: Int32, endOfStream: Bool) {
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

    private func makeExchange(
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

    private func refuse(
        _ stream: Int32, _ status: HTTPResponse.Status, _ message: String, _ reason: Refusal,
        isHead: Bool = false
    ) {
        settings.metrics.refused(reason)
        let (head, body) = Refusals.parts(
            status, message, serverName: settings.service.serverName)
        send(head, isHead ? ByteBuffer() : body, stream: stream)
    }

    // MARK: from the tasks

    func carryOut(_ commands: [(request: Int, command: ResponseCommand)]) {
        for (request, command) in commands { carryOut(command, stream: Int32(request)) }
        flush()
    }

    private func carryOut(_ command: ResponseCommand, stream: Int32) {
        guard let session else { return }
        if case .taskEnded = command { taskCount -= 1 }
        guard running[stream] != nil, !hold(command, stream: stream) else { return }
        switch command {
        case .whole(let head, let body): send(head, body, stream: stream)
        case .head(let head):
            submit(head, stream: stream, endOfStream: false)
        case .body(let bytes):
            session.appendBody(bytes, stream: stream)
        case .end(let trailers): session.finishBody(stream: stream, trailers: trailers)
        case .abort:
            settings.metrics.reset(.handler)
            session.reset(stream: stream, code: .internalError)
        case .bodyWanted:
            guard running[stream]?.expectsContinue == true,
                running[stream]?.isReceived == false
            else { return }
            running[stream]?.expectsContinue = false
            try? session.submitContinue(stream: stream)
        case .consumed(let byteCount): session.consume(byteCount, stream: stream)
        case .taskEnded: break
        }
    }

    /// Keeps an answer back for a moment while the body is small and on its way: one that comes
    /// before the body's end must be followed by RST_STREAM (RFC 9113 §8.1), of which some clients
    /// make a failure, and a body of another length than announced is found out.
    private func hold(_ command: ResponseCommand, stream: Int32) -> Bool {
        switch command {
        case .whole, .head, .body, .end: break
        default: return false
        }
        if running[stream]?.held != nil {
            running[stream]?.held?.append(command)
            return true
        }
        guard let context, let request = running[stream], !request.isReceived,
            !request.expectsContinue, case .whole = command,
            let length = request.exchange.request.headerFields[.contentLength].flatMap({ Int($0) }),
            length <= Self.smallBodyByteCount
        else { return false }
        running[stream]?.held = [command]
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .milliseconds(50)) {
            bound.value.release(stream)
            bound.value.flush()
        }
        return true
    }

    private static let smallBodyByteCount = 64 * 1024

    private func release(_ stream: Int32) {
        guard let held = running[stream]?.held else { return }
        running[stream]?.held = nil
        // Whatever of the body still comes is not waited for again.
        running[stream]?.isReceived = true
        for command in held { carryOut(command, stream: stream) }
    }

    private func send(_ head: HTTPResponse, _ body: ByteBuffer, stream: Int32) {
        let isEmpty = body.readableBytes == 0
        submit(head, stream: stream, endOfStream: isEmpty)
        guard !isEmpty else { return }
        session?.appendBody(body, stream: stream)
        session?.finishBody(stream: stream)
    }

    private func submit(_ head: HTTPResponse, stream: Int32, endOfStream: Bool) {
        // A client that heard the final answer needs no permission to send a body.
        running[stream]?.expectsContinue = false
        do {
            try session?.submitResponse(head, stream: stream, endOfStream: endOfStream)
        } catch {
            settings.logger.debug("response refused", metadata: ["error": "\(error)"])
            session?.reset(stream: stream, code: .internalError)
        }
    }

    // MARK: to the socket

    /// Sends what the session has, as long as the socket takes it.
    private func flush() {
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

    // MARK: time

    private func look(elapsed: TimeAmount) {
        guard let session, let context, !isLingering else { return }
        let now = NIODeadline.now()
        if let unwritableSince,
            now - unwritableSince > TimeAmount(settings.limits.responseStallTimeout)
        {
            settings.metrics.refused(.responseStalled)
            return context.close(promise: nil)
        }
        if running.isEmpty {
            if now - idleSince > TimeAmount(settings.limits.idleTimeout) {
                settings.metrics.refused(.idle)
                session.terminate(code: .noError)
            }
        }
        lookAtUnfinishedFrame(session, now: now)
        for stream in Array(running.keys) { look(at: stream, elapsed: elapsed, now: now) }
        flush()
    }

    /// A header block or a frame other than DATA may take no longer than an HTTP/1.1 head.
    private func lookAtUnfinishedFrame(_ session: HTTP2Session, now: NIODeadline) {
        let progress = session.frameProgress
        guard progress.isInside else {
            unfinishedFrame = nil
            return
        }
        guard let unfinishedFrame, unfinishedFrame.ordinal == progress.count else {
            unfinishedFrame = (progress.count, now)
            return
        }
        guard now - unfinishedFrame.since > TimeAmount(settings.limits.headerTimeout) else {
            return
        }
        settings.metrics.refused(.headerTimeout)
        isCutOff = true
        session.terminate(code: .enhanceYourCalm)
    }

    private func look(at stream: Int32, elapsed: TimeAmount, now: NIODeadline) {
        guard var request = running[stream] else { return }
        if request.isStalled(at: now, limits: settings.limits) {
            settings.metrics.refused(.responseStalled)
            settings.metrics.reset(.stalled)
            session?.reset(stream: stream, code: .cancel)
            return
        }
        guard !request.isReceived, let body = request.exchange.body else { return }
        let isFastEnough = request.pace.elapsed(
            elapsed, isHungry: body.isHungry, limits: settings.limits)
        running[stream] = request
        if !isFastEnough {
            settings.metrics.refused(.bodyTimeout)
            body.fail(HTTPError(.requestTimeout, message: "The request body came too slowly"))
        }
    }

    /// Two steps (RFC 9113 §6.8): say that the end is near, then, when the client has read that,
    /// refuse what it begins later.
    private func drain(_ context: ChannelHandlerContext) {
        guard !isDraining, let session else { return }
        isDraining = true
        session.announceShutdown()
        flush()
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .seconds(1)) {
            bound.value.session?.refuseNewStreams()
            bound.value.flush()
        }
    }
}
