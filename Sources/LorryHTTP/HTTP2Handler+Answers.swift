import HTTPTypes
import Logging
import NIOCore

/// What the requests' tasks ask of the connection.
extension HTTP2Handler {
    func carryOut(_ commands: [(request: Int, command: ResponseCommand)]) {
        for (request, command) in commands { carryOut(command, stream: Int32(request)) }
        flush()
    }

    func carryOut(_ command: ResponseCommand, stream: Int32) {
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
    func hold(_ command: ResponseCommand, stream: Int32) -> Bool {
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

    static let smallBodyByteCount = 64 * 1024

    func release(_ stream: Int32) {
        guard let held = running[stream]?.held else { return }
        running[stream]?.held = nil
        // Whatever of the body still comes is not waited for again.
        running[stream]?.isReceived = true
        for command in held { carryOut(command, stream: stream) }
    }

    func send(_ head: HTTPResponse, _ body: ByteBuffer, stream: Int32) {
        let isEmpty = body.readableBytes == 0
        submit(head, stream: stream, endOfStream: isEmpty)
        guard !isEmpty else { return }
        session?.appendBody(body, stream: stream)
        session?.finishBody(stream: stream)
    }

    func submit(_ head: HTTPResponse, stream: Int32, endOfStream: Bool) {
        // A client that heard the final answer needs no permission to send a body.
        running[stream]?.expectsContinue = false
        do {
            try session?.submitResponse(head, stream: stream, endOfStream: endOfStream)
        } catch {
            settings.logger.debug("response refused", metadata: ["error": "\(error)"])
            session?.reset(stream: stream, code: .internalError)
        }
    }
}
