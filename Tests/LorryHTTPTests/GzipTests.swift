import HTTPTypes
import Hummingbird
import Logging
import LorryHTTP
import NIOCore
import Testing

@Suite struct GzipTests {
    private func run(_ direction: GzipStream.Direction, _ bytes: [UInt8]) throws -> [UInt8] {
        let stream = try GzipStream(direction)
        var input = ByteBuffer(bytes: bytes)
        var output: [UInt8] = []
        while true {
            let part = try stream.process(&input, isLast: true, limit: 100)
            #expect(part.readableBytes <= 100)
            output += part.readableBytesView
            if stream.isFinished || part.readableBytes == 0 { break }
        }
        return output
    }

    @Test(arguments: [0, 1, 99, 100, 5000, 300_000])
    func roundTrip(count: Int) throws {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 * $0 / 7) }
        let packed = try run(.compress, bytes)
        #expect(packed.starts(with: [0x1f, 0x8b]))
        #expect(try run(.decompress, packed) == bytes)
    }

    @Test func garbageIsAnError() {
        #expect(throws: GzipError.self) { try run(.decompress, Array("not gzip at all".utf8)) }
    }

    @Test(arguments: [
        ("gzip", true), ("GZIP;q=0.5", true), ("gzip;q=0", false), ("deflate", false), ("", false),
        ("*", true), ("*;q=0", false), ("br, gzip;q=0.8", true), ("identity, gzip;q=0.5", false),
        ("gzip;q=0, *", false), ("identity;q=0.1 , gzip; q=0.2", true), ("gzip;q=x", false),
    ])
    func acceptEncoding(value: String, expected: Bool) {
        #expect(AcceptEncoding.prefersGzip(value) == expected)
        #expect(!AcceptEncoding.prefersGzip(nil))
    }

    private func respond(
        _ path: String, accept: String?, method: HTTPRequest.Method = .get,
        body: (bytes: [UInt8], coding: String)? = nil
    ) async throws -> (Response, [UInt8]) {
        let router = Router(context: LorryRequestContext.self)
        router.add(middleware: GzipMiddleware())
        router.add(middleware: GunzipMiddleware { _ in 100_000 })
        let long = String(repeating: "{\"a\":1}", count: 10_000)
        @Sendable func answer(_ type: String, _ text: String) -> Response {
            Response(
                status: .ok, headers: [.contentType: type],
                body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
        }
        router.get("json") { _, _ in answer("application/json; charset=utf-8", long) }
        router.get("short") { _, _ in answer("application/json", "{}") }
        router.get("events") { _, _ in answer("text/event-stream", long) }
        router.post("echo") { request, _ in
            Response(
                status: .ok,
                body: ResponseBody(byteBuffer: try await request.body.collect(upTo: .max)))
        }
        var head = HTTPRequest(method: method, scheme: "http", authority: "a", path: path)
        head.headerFields[.acceptEncoding] = accept
        head.headerFields[.contentEncoding] = body?.coding
        let response = try await router.buildResponder().respond(
            to: Request(
                head: head, body: RequestBody(buffer: ByteBuffer(bytes: body?.bytes ?? []))),
            context: LorryRequestContext(
                source: HTTPRequestSource(logger: Logger(label: "test"), requestID: "1")))
        let sink = CollectingWriter()
        try await response.body.write(sink)
        return (response, sink.bytes)
    }

    @Test func middlewareCompressesLongJSONWhenAsked() async throws {
        let (packed, bytes) = try await respond("/json", accept: "gzip")
        #expect(packed.headers[.contentEncoding] == "gzip")
        #expect(packed.headers[.contentLength] == nil)
        #expect(packed.headers[.vary] == "accept-encoding")
        #expect(bytes.count < 5000)
        #expect(try run(.decompress, bytes).count == 70_000)
        let (plain, whole) = try await respond("/json", accept: nil)
        #expect(plain.headers[.contentEncoding] == nil)
        #expect(plain.headers[.vary] == "accept-encoding")
        #expect(whole.count == 70_000)
    }

    @Test(arguments: ["/short", "/events"])
    func middlewareLeavesOthersAlone(path: String) async throws {
        let (response, _) = try await respond(path, accept: "gzip")
        #expect(response.headers[.contentEncoding] == nil)
        #expect(response.headers[.vary] == nil)
    }

    @Test func packedRequestsAreUnpackedWithinBounds() async throws {
        let text = Array(String(repeating: "hello ", count: 5000).utf8)
        let packed = try run(.compress, text)
        let (_, echoed) = try await respond(
            "/echo", accept: nil, method: .post, body: (packed, "gzip"))
        #expect(echoed == text)
        let bomb = try run(.compress, [UInt8](repeating: 0, count: 2_000_000))
        let (tooLarge, _) = try await respond(
            "/echo", accept: nil, method: .post, body: (bomb, "gzip"))
        #expect(tooLarge.status == .contentTooLarge)
        for broken in [Array(packed.dropLast(5)), packed + [1], [1, 2, 3]] {
            let (refused, _) = try await respond(
                "/echo", accept: nil, method: .post, body: (broken, "gzip"))
            #expect(refused.status == .badRequest)
        }
        let (other, _) = try await respond("/echo", accept: nil, method: .post, body: ([1], "br"))
        #expect(other.status == .unsupportedMediaType)
    }
}

/// Keeps what is written.
private final class CollectingWriter: ResponseBodyWriter {
    var bytes: [UInt8] = []
    func write(_ buffer: ByteBuffer) async throws { bytes += buffer.readableBytesView }
    func finish(_ trailingHeaders: HTTPFields?) async throws {}
}
