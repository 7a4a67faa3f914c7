import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// What a connection knows of its peer.
struct ConnectionPeer: Sendable {
    let address: SocketAddress?
    let version: HTTPProtocolVersion
    let isSecure: Bool
}

/// A responder that answers some requests without any waiting and with next to no work, such as
/// probes. They are answered on the connection's event loop, not in line behind the tasks that
/// hold the threads of Swift's pool.
public protocol ImmediateResponder: HTTPResponder {
    /// Whether the answer to a request is made without suspending. Asked before its task begins.
    func answersImmediately(_ request: HTTPRequest) -> Bool
}

/// Runs a responder for a request, and sends exactly one response.
struct RequestService: Sendable {
    let respond: @Sendable (Request, HTTPRequestSource) async throws -> Response
    let answersImmediately: @Sendable (HTTPRequest) -> Bool
    let logger: Logger
    let serverName: String?

    init<Responder: HTTPResponder>(responder: Responder, logger: Logger, serverName: String?)
    where Responder.Context: RequestContext, Responder.Context.Source == HTTPRequestSource {
        self.logger = logger
        self.serverName = serverName
        let immediate = responder as? any ImmediateResponder
        answersImmediately = { immediate?.answersImmediately($0) ?? false }
        respond = { request, source in
            let context = Responder.Context(source: source)
            do {
                return try await responder.respond(to: request, context: context)
            } catch let error as any HTTPResponseError {
                return try error.response(from: request, context: context)
            }
        }
    }

    /// Starts the request's task; it posts `taskEnded` last. One that is answered immediately runs
    /// before this returns.
    func start(
        _ exchange: Exchange, peer: ConnectionPeer, onEnd: @escaping @Sendable () -> Void
    ) -> Task<Void, Never> {
        let work = { @Sendable in
            await run(exchange, peer: peer)
            onEnd()
            exchange.post(.taskEnded)
        }
        guard #available(macOS 26, *), answersImmediately(exchange.request) else {
            return Task(operation: work)
        }
        return Task.immediate(operation: work)
    }

    private func run(_ exchange: Exchange, peer: ConnectionPeer) async {
        let requestID = RequestID.of(exchange.request)
        let source = HTTPRequestSource(
            logger: logger, requestID: requestID, peerAddress: peer.address,
            protocolVersion: peer.version, isSecure: peer.isSecure)
        let body = exchange.body.map { RequestBody(asyncSequence: $0) }
        let request = Request(
            head: exchange.request, body: body ?? RequestBody(buffer: ByteBuffer()))
        var response: Response
        do {
            response = try await respond(request, source)
        } catch {
            if error is ConnectionClosed || (error is CancellationError && Task.isCancelled) {
                return exchange.post(.abort)
            }
            source.logger.error("handler failed", metadata: ["error": "\(error)"])
            response = Refusals.response(.internalServerError, "The server failed on this request")
        }
        addFields(to: &response, requestID: requestID)
        await send(response, exchange: exchange, logger: source.logger)
    }

    private func addFields(to response: inout Response, requestID: String) {
        if response.headers[RequestID.name] == nil {
            response.headers[RequestID.name] = requestID
        }
        if response.headers[.date] == nil { response.headers[.date] = HTTPDate.now }
        if let serverName { response.headers[.server] = serverName }
    }

    private func send(_ response: Response, exchange: Exchange, logger: Logger) async {
        var head = response.head
        if head.status.code < 200 {
            // Informational answers are the connection's own; a handler's would end nothing.
            logger.error(
                "handler answered with an informational status",
                metadata: ["status": "\(head.status.code)"])
            head.status = .internalServerError
        }
        let sender = ResponseSender(
            head, contentLength: response.body.contentLength, exchange: exchange)
        if exchange.request.method == .head { return }
        do {
            try await response.body.write(ExchangeBodyWriter(sender: sender))
            try sender.finish(nil)
        } catch {
            if !(error is ConnectionClosed || error is CancellationError) {
                logger.error("response failed", metadata: ["error": "\(error)"])
            }
            exchange.post(.abort)
        }
    }
}

/// Answers that the server itself gives, in the shape of OpenAI's errors.
enum Refusals {
    static func response(_ status: HTTPResponse.Status, _ message: String) -> Response {
        Response(
            status: status,
            headers: [.contentType: "application/json", .cacheControl: "no-store"],
            body: ResponseBody(byteBuffer: body(status, message)))
    }

    /// A whole answer for a request that never reaches a task.
    static func parts(
        _ status: HTTPResponse.Status, _ message: String, serverName: String?
    ) -> (head: HTTPResponse, body: ByteBuffer) {
        var response = response(status, message)
        response.headers[.date] = HTTPDate.now
        if status == .serviceUnavailable { response.headers[.retryAfter] = "5" }
        response.headers[RequestID.name] = RequestID.make()
        if let serverName { response.headers[.server] = serverName }
        return (response.head, body(status, message))
    }

    /// The JSON text; `message` is our own and needs no escaping.
    static func body(_ status: HTTPResponse.Status, _ message: String) -> ByteBuffer {
        let type = status.code < 500 ? "invalid_request_error" : "server_error"
        return ByteBuffer(
            string: """
                {"error":{"message":"\(message)","type":"\(type)","param":null,\
                "code":\(status.code)}}
                """)
    }
}
