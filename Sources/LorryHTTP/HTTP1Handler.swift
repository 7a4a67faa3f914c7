import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOHTTP1

/// Serves HTTP/1.1 on a channel: one request at a time, in order, a task for each.
///
/// While a request runs, what the client sends ahead waits in `waiting`, and the socket is not
/// read. The end of the client's side cancels the running request, whose answer, if it still gives
/// one, is sent (a client such as `nc` half-closes and waits).
final class HTTP1Handler: ChannelDuplexHandler, RemovableChannelHandler, ResponseCommandReceiver {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = Never
    typealias OutboundOut = HTTPServerResponsePart

    let settings: ConnectionSettings
    let peer: ConnectionPeer
    let mailbox: Mailbox
    var context: ChannelHandlerContext?

    var current: RunningRequest?
    var response = ResponseState()
    var ordinal = 0
    var waiting = CircularBuffer<HTTPServerRequestPart>()
    var waitingHeadCount = 0
    /// Why nothing is served after the requests under way.
    var violation: HTTP1Rules.Violation?
    var upgrade: HTTP2Handler.Upgrade?
    var isReadWithheld = false
    var isInputClosed = false
    var isDraining = false
    /// The last answer is out; what still comes is thrown away.
    var isLingering = false
    var idleSince = NIODeadline.now()
    var isFirstRequest = true
    var headBegan: NIODeadline?
    var framing = HTTP1Framing()
    var ticker: RepeatedTask?

    struct ResponseState {
        var keepsAlive = true
        var version = HTTPVersion.http1_1
        var isHeadSent = false
    }

    init(settings: ConnectionSettings, peer: ConnectionPeer, eventLoop: any EventLoop) {
        self.settings = settings
        self.peer = peer
        mailbox = Mailbox(eventLoop: eventLoop)
    }

    // MARK: channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        mailbox.setReceiver(self)
        settings.metrics.connectionOpened(.http1)
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        let tick = settings.tick
        ticker = context.eventLoop.scheduleRepeatedTask(initialDelay: tick, delay: tick) { _ in
            bound.value.look(elapsed: tick)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        end()
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func end() {
        guard context != nil else { return }
        context = nil
        ticker?.cancel()
        mailbox.setReceiver(nil)
        settings.metrics.connectionClosed(.http1)
        if let current {
            settings.metrics.reset(.disconnect)
            current.abandon()
        }
        current = nil
        waiting = []
    }

    /// Whether nothing of the next request has arrived.
    var isBetweenRequests: Bool {
        current == nil && waiting.isEmpty && headBegan == nil && !isLingering
    }

    /// Bytes arrive in front of the parser.
    ///
    /// - Returns: false when they are not to be parsed: more came that is no content than a client
    ///   has a use for.
    func noteBytes(_ byteCount: Int) -> Bool {
        guard !isLingering, violation == nil else { return false }
        if isBetweenRequests { headBegan = .now() }
        guard framing.isWithin(settings.limits) else {
            let violation = HTTP1Rules.Violation(
                "The request has more framing than content", reason: .floodFraming)
            if current == nil { refuse(violation) } else { endBody(violation) }
            return false
        }
        if current?.isReceived != true { framing.arrived(byteCount) }
        return true
    }

    /// What is wrong with the bytes of a request, seen before or by the parser.
    func take(_ violation: HTTP1Rules.Violation) {
        guard !isLingering else { return }
        guard let current else { return refuse(violation) }
        if current.isReceived { self.violation = violation } else { endBody(violation) }
    }

    /// The rest of the body cannot be read: its handler hears of it, and the connection ends.
    func endBody(_ violation: HTTP1Rules.Violation) {
        guard self.violation == nil else { return }
        self.violation = violation
        settings.metrics.refused(violation.reason)
        current?.exchange.body?.fail(HTTPError(violation.status, message: violation.message))
        response.keepsAlive = false
    }

    /// The client speaks another protocol; no answer of ours would tell it anything.
    func refuseProtocol() {
        settings.metrics.refused(.protocolError)
        context?.close(promise: nil)
    }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { isReadWithheld = true }
    }

    var mayRead: Bool {
        guard let current, !isLingering else { return true }
        guard !current.isReceived else { return false }
        return (current.exchange.body?.bufferedByteCount ?? 0)
            < settings.limits.responseBufferByteCount
    }

    func resumeReading() {
        guard isReadWithheld, mayRead, let context else { return }
        isReadWithheld = false
        context.read()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isLingering, violation == nil else { return }
        let part = unwrapInboundIn(data)
        guard let current, current.isReceived else { return take(part) }
        if case .head = part {
            waitingHeadCount += 1
            if waitingHeadCount > settings.limits.pipelinedRequestCount {
                violation = HTTP1Rules.Violation(
                    "Too many requests were sent ahead", reason: .pipeline)
                return
            }
        }
        waiting.append(part)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case is DrainEvent:
            isDraining = true
            if isBetweenRequests { context.close(promise: nil) }
        case is DrainDeadline: current?.failUnfinishedBody()
        case ChannelEvent.inputClosed: inputClosed(context)
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    func inputClosed(_ context: ChannelHandlerContext) {
        isInputClosed = true
        guard let current, !isLingering else { return context.close(promise: nil) }
        response.keepsAlive = response.keepsAlive && !waiting.isEmpty
        current.exchange.body?.fail(ConnectionClosed())
        current.task.cancel()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A parser that has failed complains of every further byte.
        guard !isLingering, violation == nil else { return }
        guard let error = error as? HTTPParserError else {
            settings.logger.debug(
                "connection ended",
                metadata: [
                    "error": "\(error)", "peer": "\(peer.address?.description ?? "unknown")",
                ])
            return context.close(promise: nil)
        }
        let violation =
            switch error {
            case .headerOverflow:
                HTTP1Rules.Violation(
                    "The request's header is too large", status: .requestHeaderFieldsTooLarge,
                    reason: .headersTooLarge)
            default: HTTP1Rules.Violation("The request is malformed")
            }
        settings.logger.debug(
            "request refused",
            metadata: ["error": "\(error)", "peer": "\(peer.address?.description ?? "unknown")"])
        take(violation)
    }

    // MARK: requests

    func take(_ part: HTTPServerRequestPart) {
        switch part {
        case .head(let head): begin(head)
        case .body(let bytes):
            current?.pace.received(bytes.readableBytes)
            framing.content(bytes.readableBytes)
            if current?.exchange.body?.push(bytes) == false {
                settings.metrics.refused(.bodyTooLarge)
                response.keepsAlive = false
            }
        case .end:
            if let upgrade { return switchProtocol(upgrade) }
            current?.isReceived = true
            current?.exchange.body?.finish()
        }
    }

    func begin(_ head: HTTPRequestHead) {
        headBegan = nil
        isFirstRequest = false
        framing = HTTP1Framing()
        let judged: HTTP1Rules.Head
        do throws(HTTP1Rules.Violation) {
            guard !isDraining else {
                throw HTTP1Rules.Violation(
                    "The server is shutting down", status: .serviceUnavailable, reason: .draining)
            }
            judged = try HTTP1Rules.judge(head, isSecure: peer.isSecure, limits: settings.limits)
            let limit = settings.bodyLimit(of: judged.request)
            if let length = judged.contentLength, length > limit {
                throw HTTP1Rules.Violation(
                    "The request body is over its limit of \(limit) bytes",
                    status: .contentTooLarge, reason: .bodyTooLarge)
            }
        } catch {
            return refuse(error, isHead: head.method == .HEAD)
        }
        if !peer.isSecure, let payload = judged.h2cSettings(head) {
            upgrade = HTTP2Handler.Upgrade(request: judged.request, settings: payload)
            return
        }
        response = ResponseState(
            keepsAlive: judged.keepsAlive && !judged.wantsUpgrade, version: head.version)
        ordinal += 1
        let exchange = makeExchange(judged)
        let task = settings.start(exchange, peer: peer)
        current = RunningRequest(
            exchange: exchange, task: task, expectsContinue: judged.expectsContinue,
            isReceived: false)
        if isInputClosed { task.cancel() }
    }

    func makeExchange(_ head: HTTP1Rules.Head) -> Exchange {
        let mailbox = mailbox
        let id = ordinal
        let body =
            head.hasBody
            ? InboundBody(
                byteLimit: settings.bodyLimit(of: head.request),
                onFirstAsk: { mailbox.post(.bodyWanted, request: id) },
                onConsume: { mailbox.post(.consumed($0), request: id) })
            : nil
        return Exchange(
            id: id, request: head.request, body: body,
            gate: OutboundGate(settings.limits), mailbox: mailbox)
    }

    func takeWaiting() {
        while current == nil, !isLingering, let part = waiting.popFirst() {
            if case .head = part { waitingHeadCount -= 1 }
            take(part)
            // A request without the end of which is here goes on with what comes.
            while let running = current, !running.isReceived, let part = waiting.popFirst() {
                take(part)
            }
        }
        guard current == nil, !isLingering else { return }
        if let violation { return refuse(violation) }
        if isInputClosed || (isDraining && isBetweenRequests) { context?.close(promise: nil) }
    }

    // MARK: h2c

    /// Answers 101, takes HTTP/1.1's handlers out, and lets HTTP/2 serve the request as stream 1.
    func switchProtocol(_ upgrade: HTTP2Handler.Upgrade) {
        guard let context else { return }
        self.upgrade = nil
        let fields = HTTPHeaders([("connection", "upgrade"), ("upgrade", "h2c")])
        let head = HTTPResponseHead(
            version: .http1_1, status: .switchingProtocols, headers: fields)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        // Later, because the parser is in the middle of calling us.
        let bound = NIOLoopBound((self, upgrade), eventLoop: context.eventLoop)
        context.eventLoop.execute {
            let (handler, upgrade) = bound.value
            guard let context = handler.context else { return }
            HTTPPipeline.switchToHTTP2(context, handler: handler, upgrade: upgrade)
        }
    }
}
