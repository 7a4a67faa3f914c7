import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTP1

/// What the request's task, or the connection itself, answers.
extension HTTP1Handler {
    func carryOut(_ commands: [(request: Int, command: ResponseCommand)]) {
        for (request, command) in commands where request == ordinal && current != nil {
            carryOut(command)
        }
        context?.flush()
    }

    func carryOut(_ command: ResponseCommand) {
        guard let context, let exchange = current?.exchange else { return }
        switch command {
        case .whole(let head, let body):
            writeHead(head)
            if body.readableBytes > 0 { write(body, exchange) }
            finishResponse(trailers: nil, isBodyless: exchange.request.method == .head)
        case .head(let head): writeHead(head)
        case .body(let bytes): write(bytes, exchange)
        case .end(let trailers): finishResponse(trailers: trailers, isBodyless: false)
        case .abort:
            settings.metrics.reset(.handler)
            // What was written before the failure may go; the missing end tells of it.
            context.flush()
            context.close(promise: nil)
        case .bodyWanted:
            guard current?.expectsContinue == true, !response.isHeadSent else { return }
            current?.expectsContinue = false
            let head = HTTPResponseHead(version: .http1_1, status: .continue)
            context.writeAndFlush(wrapOutboundOut(.head(head)), promise: nil)
        case .consumed: resumeReading()
        case .taskEnded: break
        }
    }

    func writeHead(_ head: HTTPResponse) {
        guard let context, let current else { return }
        response.isHeadSent = true
        // A body that the client has not sent by now is not waited for.
        if !current.isReceived || isDraining || isInputClosed && waiting.isEmpty {
            response.keepsAlive = false
        }
        var fields = HTTPHeaders()
        for field in head.headerFields where !Self.isFraming(field.name.canonicalName) {
            fields.add(name: field.name.rawName, value: field.value)
        }
        if !response.keepsAlive { fields.add(name: "connection", value: "close") }
        context.write(
            wrapOutboundOut(
                .head(
                    HTTPResponseHead(
                        version: response.version,
                        status: HTTPResponseStatus(
                            statusCode: head.status.code, reasonPhrase: head.status.reasonPhrase),
                        headers: fields))),
            promise: nil)
    }

    static func isFraming(_ name: String) -> Bool {
        ["connection", "transfer-encoding", "keep-alive", "upgrade"].contains(name)
    }

    func write(_ bytes: ByteBuffer, _ exchange: Exchange) {
        guard let context else { return }
        let count = bytes.readableBytes
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.whenSuccess { exchange.gate.release(count) }
        context.write(wrapOutboundOut(.body(.byteBuffer(bytes))), promise: promise)
    }

    func finishResponse(trailers: HTTPFields?, isBodyless: Bool) {
        guard let context, let finished = current else { return }
        // The encoder would end an answer to HEAD with a last chunk.
        if !isBodyless {
            let trailers = trailers.map { fields in
                HTTPHeaders(fields.map { ($0.name.rawName, $0.value) })
            }
            context.write(wrapOutboundOut(.end(trailers)), promise: nil)
        }
        context.flush()
        let mustClose = !response.keepsAlive || !finished.isReceived
        current = nil
        idleSince = .now()
        finished.exchange.body?.fail(ConnectionClosed())
        if mustClose {
            let isQuiet = finished.isReceived && waiting.isEmpty && violation == nil
            return isQuiet ? context.close(promise: nil) : linger()
        }
        takeWaiting()
        resumeReading()
    }

    func refuse(_ violation: HTTP1Rules.Violation, isHead: Bool = false) {
        guard let context else { return }
        settings.metrics.refused(violation.reason)
        let (head, body) = Refusals.parts(
            violation.status, violation.message, serverName: settings.service.serverName)
        var fields = HTTPHeaders(head.headerFields.map { ($0.name.rawName, $0.value) })
        fields.add(name: "connection", value: "close")
        let status = HTTPResponseStatus(
            statusCode: head.status.code, reasonPhrase: head.status.reasonPhrase)
        context.write(
            wrapOutboundOut(
                .head(HTTPResponseHead(version: .http1_1, status: status, headers: fields))),
            promise: nil)
        if !isHead {
            context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil)
            context.write(wrapOutboundOut(.end(nil)), promise: nil)
        }
        context.flush()
        linger()
    }

    /// Closes our side and throws away what the client still sends, for a short while: closing at
    /// once could destroy the answer on its way (RFC 9112 §9.6).
    func linger() {
        guard let context else { return }
        isLingering = true
        waiting = []
        if isInputClosed { return context.close(promise: nil) }
        if !peer.isSecure { context.close(mode: .output, promise: nil) }
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .seconds(peer.isSecure ? 1 : 2)) {
            bound.value.context?.close(promise: nil)
        }
        resumeReading()
    }
}
