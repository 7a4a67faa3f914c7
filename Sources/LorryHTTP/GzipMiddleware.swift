import HTTPTypes
import Hummingbird
import NIOCore

/// Compresses JSON and metrics text when the client prefers gzip; event streams never.
public struct GzipMiddleware<Context: RequestContext>: RouterMiddleware {
    private let minimumByteCount: Int

    /// - Parameter minimumByteCount: bodies known to be shorter stay as they are.
    public init(minimumByteCount: Int = 1024) {
        self.minimumByteCount = minimumByteCount
    }

    public func handle(
        _ request: Request, context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        var response = try await next(request, context)
        guard isCompressible(response) else { return response }
        response.headers.append(HTTPField(name: .vary, value: "accept-encoding"))
        guard request.method != .head,
            AcceptEncoding.prefersGzip(request.headers[.acceptEncoding])
        else { return response }
        let body = response.body
        response.body = ResponseBody { writer in
            try await body.write(GzipWriter(stream: GzipStream(.compress), parent: writer))
        }
        response.headers[.contentEncoding] = "gzip"
        response.headers[.contentLength] = nil
        return response
    }

    private func isCompressible(_ response: Response) -> Bool {
        guard response.status.code == 200 || response.status.code >= 400,
            response.headers[.contentEncoding] == nil,
            response.body.contentLength ?? minimumByteCount >= minimumByteCount,
            let type = response.headers[.contentType]?.split(separator: ";").first
        else { return false }
        return ["application/json", "text/plain", "application/openmetrics-text"]
            .contains(type.trimmingSpaces().lowercased())
    }
}

/// Hands what is written on, compressed, in pieces of bounded size.
private struct GzipWriter: ResponseBodyWriter {
    let stream: GzipStream
    var parent: any ResponseBodyWriter

    mutating func write(_ buffer: ByteBuffer) async throws {
        try await pump(buffer, isLast: false)
    }

    consuming func finish(_ trailingHeaders: HTTPFields?) async throws {
        try await pump(ByteBuffer(), isLast: true)
        try await parent.finish(trailingHeaders)
    }

    private mutating func pump(_ buffer: ByteBuffer, isLast: Bool) async throws {
        var input = buffer
        while input.readableBytes > 0 || (isLast && !stream.isFinished) {
            let output = try stream.process(&input, isLast: isLast)
            if output.readableBytes > 0 { try await parent.write(output) }
        }
    }
}

/// Unpacks request bodies that come with `content-encoding: gzip`, up to a bound; any other
/// coding is refused with 415.
public struct GunzipMiddleware<Context: RequestContext>: RouterMiddleware {
    private let byteLimit: @Sendable (Request) -> Int

    /// - Parameter byteLimit: of the unpacked body; more makes its reader throw 413.
    public init(byteLimit: @escaping @Sendable (Request) -> Int) {
        self.byteLimit = byteLimit
    }

    public func handle(
        _ request: Request, context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        guard let coding = request.headers[.contentEncoding]?.lowercased(), coding != "identity"
        else { return try await next(request, context) }
        guard coding == "gzip" || coding == "x-gzip" else {
            throw HTTPError(
                .unsupportedMediaType, headers: [.acceptEncoding: "gzip, identity"],
                message: "Only the content-encoding gzip is accepted")
        }
        var request = request
        request.body = RequestBody(
            asyncSequence: GunzippedBody(packed: request.body, byteLimit: byteLimit(request)))
        return try await next(request, context)
    }
}

/// A gzip body, unpacked as it is read.
struct GunzippedBody: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    let packed: RequestBody
    let byteLimit: Int

    func makeAsyncIterator() -> AsyncIterator {
        AsyncIterator(packed: packed.makeAsyncIterator(), byteLimit: byteLimit)
    }

    struct AsyncIterator: AsyncIteratorProtocol {
        var packed: RequestBody.AsyncIterator
        let byteLimit: Int
        private var stream: GzipStream?
        private var input = ByteBuffer()
        private var byteCount = 0

        init(packed: RequestBody.AsyncIterator, byteLimit: Int) {
            self.packed = packed
            self.byteLimit = byteLimit
        }

        mutating func next() async throws -> ByteBuffer? {
            do {
                return try await unpack()
            } catch is GzipError {
                throw HTTPError(.badRequest, message: "The request body is not sound gzip")
            }
        }

        private mutating func unpack() async throws -> ByteBuffer? {
            let stream = try self.stream ?? GzipStream(.decompress)
            self.stream = stream
            while !stream.isFinished {
                let output = try stream.process(&input, isLast: false)
                if output.readableBytes > 0 {
                    byteCount += output.readableBytes
                    guard byteCount <= byteLimit else {
                        throw InboundBody.tooLarge(limit: byteLimit)
                    }
                    return output
                }
                if stream.isFinished { break }
                guard let more = try await packed.next() else { throw GzipError(code: -5) }
                input.writeImmutableBuffer(more)
            }
            // What follows the end is read, so that the client is not left hanging, and refused.
            guard input.readableBytes == 0, try await packed.next() == nil else {
                throw GzipError(code: -3)
            }
            return nil
        }
    }
}
