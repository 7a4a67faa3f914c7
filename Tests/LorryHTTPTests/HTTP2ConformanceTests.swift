import Foundation
import LorryHTTP
import NIOCore
import RawTraffic
import Testing

/// A rule of RFC 9113 or RFC 7541 (or of RFC 7540, where clients still rely on it): what a client
/// sends after the preface, and what the server must do then. Sections and order are those of the
/// tool h2spec, whose cases these are.
struct ConformanceCase: Sendable, CustomTestStringConvertible {
    /// What is enough to pass.
    enum Expectation: Sendable {
        /// The connection goes on: a PING at the end is answered.
        case goesOn
        /// Stream 1 is answered with 200, and the connection goes on.
        case answered
        /// GOAWAY with one of these codes, then the end.
        case connectionError([UInt32])
        /// RST_STREAM with one of these codes, or as for a connection error.
        case streamError([UInt32])
        /// SETTINGS is acknowledged.
        case settingsAcknowledged
    }

    let section: String
    let rule: String
    let bytes: [UInt8]
    let expectation: Expectation

    var testDescription: String { "\(section) \(rule)" }

    init(_ section: String, _ rule: String, _ bytes: [UInt8], _ expectation: Expectation) {
        self.section = section
        self.rule = rule
        self.bytes = bytes
        self.expectation = expectation
    }
}

private let get = Frame.headers(Block.get("/health"), stream: 1)
private let open = Frame.headers(Block.post("/echo"), stream: 1, flags: Frame.endHeaders)
private let whole = Frame.endHeaders | Frame.endStream

private let protocolError = ConformanceCase.Expectation.connectionError([1])
private let frameSizeError = ConformanceCase.Expectation.connectionError([6])
private let compressionError = ConformanceCase.Expectation.connectionError([9])
private let malformed = ConformanceCase.Expectation.streamError([1])

private func head(_ block: [UInt8]) -> [UInt8] { Frame.headers(block, stream: 1) }
private func getWith(_ block: [UInt8]) -> [UInt8] { head(Block.get("/health") + block) }
private func settings(_ id: UInt16, _ value: UInt32) -> [UInt8] { Frame.settings([(id, value)]) }

private let generic: [ConformanceCase] = [
    .init("generic/1", "the preface", [], .goesOn),
    .init(
        "generic/2", "PRIORITY of an idle stream", Frame.priority(stream: 3, dependsOn: 0), .goesOn),
    .init(
        "generic/2", "WINDOW_UPDATE when half closed", get + Frame.windowUpdate(stream: 1, by: 9),
        .answered),
    .init(
        "generic/2", "PRIORITY when half closed", get + Frame.priority(stream: 1, dependsOn: 0),
        .answered),
    .init("generic/2", "RST_STREAM when half closed", get + Frame.reset(stream: 1), .goesOn),
    .init("generic/3.1", "DATA", open + Frame.data([1], stream: 1, flags: 1), .answered),
    .init(
        "generic/3.1", "several DATA",
        open + Frame.data([1], stream: 1) + Frame.data([1], stream: 1, flags: 1), .answered),
    .init(
        "generic/3.1", "padded DATA", open + Frame.data([2, 1, 0, 0], stream: 1, flags: 9),
        .answered),
    .init("generic/3.2", "HEADERS", get, .answered),
    .init(
        "generic/3.2", "padded HEADERS",
        Frame.headers([2] + Block.get("/health") + [0, 0], stream: 1, flags: whole | Frame.padded),
        .answered),
    .init(
        "generic/3.2", "HEADERS with priority",
        Frame.headers(
            [0, 0, 0, 0, 15] + Block.get("/health"), stream: 1, flags: whole | Frame.hasPriority),
        .answered),
    .init(
        "generic/3.3", "exclusive PRIORITY",
        Frame.priority(stream: 1, dependsOn: 0x8000_0000) + get, .answered),
    .init("generic/3.8", "GOAWAY", Frame.goAway(), .goesOn),
    .init("generic/3.9", "WINDOW_UPDATE", Frame.windowUpdate(stream: 0, by: 1) + get, .answered),
    .init(
        "generic/3.10", "CONTINUATION",
        Frame.headers(Block.get("/health"), stream: 1, flags: 1)
            + Frame.continuation(Block.field("x", "y"), stream: 1, flags: 4), .answered),
    .init(
        "generic/4", "trailers",
        open + Frame.data([1], stream: 1) + Frame.headers(Block.field("x", "y"), stream: 1),
        .answered),
    .init(
        "generic/5", "literal with indexing", getWith(Block.indexedField("x", "y") + [0xbe]),
        .answered),
    .init(
        "generic/5", "literal that is never indexed", getWith([0x10, 1, 0x78, 1, 0x79]), .answered),
    .init("generic/5", "Huffman coding", getWith([0x40, 0x81, 0xf3, 0x81, 0xf5]), .answered),
    .init("generic/5", "table size update", head([0x20] + Block.get("/health")), .answered),
]

private let frames: [ConformanceCase] = [
    .init("4.1", "an unknown type is ignored", Frame.raw(type: 0x16, [1, 2, 3]), .goesOn),
    .init(
        "4.1", "unknown flags are ignored",
        Frame.raw(type: 6, flags: 0x16, [UInt8](repeating: 0, count: 8)), .goesOn),
    .init(
        "4.1", "the reserved bit is ignored",
        Frame.raw(type: 6, stream: 0x8000_0000, [UInt8](repeating: 0, count: 8)), .goesOn),
    .init(
        "4.2", "16,384 bytes",
        open + Frame.data([UInt8](repeating: 1, count: 16_384), stream: 1, flags: 1), .answered),
    .init(
        "4.2", "DATA over the size",
        open + Frame.data([UInt8](repeating: 1, count: 16_385), stream: 1), .streamError([6])),
    .init(
        "4.2", "HEADERS over the size",
        getWith(Block.field("x", String(repeating: "y", count: 17_000))), frameSizeError),
    .init("4.3", "an invalid block", head([0x40]), compressionError),
    .init(
        "4.3", "PRIORITY within a block",
        Frame.headers(Block.get("/"), stream: 1, flags: 1)
            + Frame.priority(stream: 1, dependsOn: 0), protocolError),
    .init(
        "4.3", "another stream's HEADERS within a block",
        Frame.headers(Block.get("/"), stream: 1, flags: 1)
            + Frame.headers(Block.get("/"), stream: 3), protocolError),
    .init("5.1", "DATA of an idle stream", Frame.data([1], stream: 1, flags: 1), protocolError),
    .init("5.1", "RST_STREAM of an idle stream", Frame.reset(stream: 1), protocolError),
    .init(
        "5.1", "WINDOW_UPDATE of an idle stream", Frame.windowUpdate(stream: 1, by: 100),
        protocolError),
    .init(
        "5.1", "CONTINUATION of an idle stream",
        Frame.continuation(Block.get("/"), stream: 1, flags: 4), protocolError),
    .init(
        "5.1", "DATA when half closed", get + Frame.data([1], stream: 1, flags: 1),
        .streamError([5])),
    .init("5.1", "HEADERS when half closed", get + get, .streamError([5])),
    .init(
        "5.1", "CONTINUATION when half closed", get + Frame.continuation([], stream: 1, flags: 4),
        .connectionError([1, 5])),
    .init(
        "5.1", "DATA after RST_STREAM",
        open + Frame.reset(stream: 1) + Frame.data([1], stream: 1, flags: 1), .streamError([5])),
    .init(
        "5.1", "HEADERS after RST_STREAM", open + Frame.reset(stream: 1) + get, .streamError([5])),
    .init(
        "5.1", "CONTINUATION after RST_STREAM",
        open + Frame.reset(stream: 1) + Frame.continuation([], stream: 1, flags: 4),
        .connectionError([1, 5])),
    .init("5.1.1", "an even stream", Frame.headers(Block.get("/"), stream: 2), protocolError),
    .init(
        "5.1.2", "streams beyond the limit",
        (0..<140).flatMap {
            Frame.headers(Block.post("/echo"), stream: UInt32(2 * $0 + 1), flags: 4)
        }, .streamError([1, 7])),
    .init(
        "5.3.1", "HEADERS that depend on themselves",
        Frame.headers(
            [0, 0, 0, 1, 15] + Block.get("/"), stream: 1, flags: whole | Frame.hasPriority),
        malformed),
    .init(
        "5.3.1", "PRIORITY that depends on itself", Frame.priority(stream: 1, dependsOn: 1),
        malformed),
    .init(
        "5.5", "an unknown frame within a block",
        Frame.headers(Block.get("/"), stream: 1, flags: 1) + Frame.raw(type: 0x16), protocolError),
]

private let definitions: [ConformanceCase] = [
    .init("6.1", "DATA of stream 0", Frame.data([1], stream: 0), protocolError),
    .init(
        "6.1", "too much padding of DATA", open + Frame.data([9, 1], stream: 1, flags: 9),
        protocolError),
    .init("6.2", "HEADERS of stream 0", Frame.headers(Block.get("/"), stream: 0), protocolError),
    .init(
        "6.2", "too much padding of HEADERS",
        Frame.headers([99] + Block.get("/"), stream: 1, flags: whole | Frame.padded), protocolError),
    .init("6.3", "PRIORITY of stream 0", Frame.priority(stream: 0, dependsOn: 1), protocolError),
    .init(
        "6.3", "a short PRIORITY", Frame.raw(type: 2, stream: 1, [0, 0, 0, 0]), .streamError([6])),
    .init("6.4", "RST_STREAM of stream 0", Frame.reset(stream: 0), protocolError),
    .init("6.4", "a short RST_STREAM", get + Frame.raw(type: 3, stream: 1, [0]), frameSizeError),
    .init(
        "6.5", "SETTINGS with ACK and payload", Frame.raw(type: 4, flags: 1, [0, 1, 0, 0, 0, 0]),
        frameSizeError),
    .init("6.5", "SETTINGS of a stream", Frame.raw(type: 4, stream: 1), protocolError),
    .init("6.5", "SETTINGS cut short", Frame.raw(type: 4, [0, 3, 0]), frameSizeError),
    .init("6.5.2", "ENABLE_PUSH 2", settings(2, 2), protocolError),
    .init(
        "6.5.2", "INITIAL_WINDOW_SIZE too large", settings(4, 0x8000_0000), .connectionError([3])),
    .init("6.5.2", "MAX_FRAME_SIZE too small", settings(5, 16_383), protocolError),
    .init("6.5.2", "MAX_FRAME_SIZE too large", settings(5, 16_777_216), protocolError),
    .init("6.5.2", "an unknown setting is ignored", settings(0xff, 1), .goesOn),
    .init("6.5.3", "acknowledgement", settings(3, 100), .settingsAcknowledged),
    .init("6.7", "PING with ACK is ignored", Frame.ping(flags: 1), .goesOn),
    .init(
        "6.7", "PING of a stream", Frame.raw(type: 6, stream: 1, [UInt8](repeating: 0, count: 8)),
        protocolError),
    .init("6.7", "a short PING", Frame.raw(type: 6, [0]), frameSizeError),
    .init(
        "6.8", "GOAWAY of a stream", Frame.raw(type: 7, stream: 1, [UInt8](repeating: 0, count: 8)),
        protocolError),
    .init("6.9", "WINDOW_UPDATE by 0", Frame.windowUpdate(stream: 0, by: 0), protocolError),
    .init(
        "6.9", "WINDOW_UPDATE of a stream by 0", open + Frame.windowUpdate(stream: 1, by: 0),
        malformed),
    .init("6.9", "a short WINDOW_UPDATE", Frame.raw(type: 8, [0, 0, 1]), frameSizeError),
    .init(
        "6.9.1", "the connection's window overflows",
        Frame.windowUpdate(stream: 0, by: 0x7fff_ffff)
            + Frame.windowUpdate(stream: 0, by: 0x7fff_ffff), .connectionError([3])),
    .init(
        "6.9.1", "a stream's window overflows",
        open + Frame.windowUpdate(stream: 1, by: 0x7fff_ffff), .streamError([3])),
    .init(
        "6.9.2", "a window that settings open", settings(4, 0) + get + settings(4, 100), .answered),
    .init(
        "6.10", "CONTINUATION after the end of a block",
        get + Frame.continuation([], stream: 1, flags: 4), protocolError),
    .init(
        "6.10", "CONTINUATION of stream 0",
        Frame.headers(Block.get("/"), stream: 1, flags: 1)
            + Frame.continuation([], stream: 0, flags: 4), protocolError),
    .init(
        "6.10", "DATA within a block",
        Frame.headers(Block.get("/"), stream: 1, flags: 0) + Frame.data([1], stream: 1),
        protocolError),
    .init(
        "7", "an unknown error code of GOAWAY", Frame.raw(type: 7, [0, 0, 0, 0, 0, 0, 0, 0xff]),
        .goesOn),
    .init(
        "7", "an unknown error code of RST_STREAM", open + Frame.reset(stream: 1, code: 0xff),
        .goesOn),
]

private let messages: [ConformanceCase] = [
    .init(
        "8.1", "HEADERS twice without the end",
        open + Frame.headers(Block.field("x", "y"), stream: 1, flags: 4), malformed),
    .init("8.1.2", "an upper-case name", getWith(Block.field("X", "y")), malformed),
    .init("8.1.2.1", "an unknown pseudo-header", getWith(Block.field(":x", "y")), malformed),
    .init(
        "8.1.2.1", "a response's pseudo-header", getWith(Block.field(":status", "200")), malformed),
    .init(
        "8.1.2.1", "a pseudo-header in trailers",
        open + Frame.headers(Block.field(":method", "GET"), stream: 1), malformed),
    .init(
        "8.1.2.1", "a pseudo-header after a field",
        head([0x82, 0x86] + Block.field("x", "y") + [0x84]), malformed),
    .init("8.1.2.2", "connection", getWith(Block.field("connection", "keep-alive")), malformed),
    .init("8.1.2.2", "te", getWith(Block.field("te", "trailers, deflate")), malformed),
    .init("8.1.2.3", "an empty path", head([0x82, 0x86, 0x04, 0x00]), malformed),
    .init("8.1.2.3", "no method", head([0x86, 0x84]), malformed),
    .init("8.1.2.3", "no scheme", head([0x82, 0x84]), malformed),
    .init("8.1.2.3", "no path", head([0x82, 0x86]), malformed),
    .init("8.1.2.3", "two methods", head([0x82, 0x82, 0x86, 0x84]), malformed),
    .init("8.1.2.3", "two schemes", head([0x82, 0x86, 0x86, 0x84]), malformed),
    .init("8.1.2.3", "two paths", head([0x82, 0x86, 0x84, 0x84]), malformed),
    .init(
        "8.1.2.6", "content-length of another length",
        Frame.headers(Block.post("/echo") + Block.field("content-length", "1"), stream: 1, flags: 4)
            + Frame.data([1, 2], stream: 1, flags: 1), malformed),
    .init(
        "8.1.2.6", "content-length of several frames",
        Frame.headers(Block.post("/echo") + Block.field("content-length", "1"), stream: 1, flags: 4)
            + Frame.data([1], stream: 1) + Frame.data([1], stream: 1, flags: 1), malformed),
    .init("8.2", "PUSH_PROMISE", Frame.pushPromise(stream: 1, promised: 2), protocolError),
]

private let hpack: [ConformanceCase] = [
    .init(
        "hpack/2.3.3", "an index beyond the table", getWith([0xff, 0xff, 0x01]), compressionError),
    .init(
        "hpack/2.3.3", "a literal's index beyond the table", getWith([0x7f, 0xff, 0x01, 0]),
        compressionError),
    .init("hpack/4.2", "a size update at the end", getWith([0x20]), compressionError),
    .init(
        "hpack/5.2", "padding over 7 bits", getWith([0x40, 0x81, 0xf3, 0x82, 0xf5, 0xff]),
        compressionError),
    .init(
        "hpack/5.2", "padding of zeros", getWith([0x40, 0x81, 0xf3, 0x81, 0xf0]), compressionError),
    .init(
        "hpack/5.2", "the end of string",
        getWith([0x40, 0x81, 0xf3, 0x84, 0xff, 0xff, 0xff, 0xff]), compressionError),
    .init("hpack/6.1", "index 0", getWith([0x80]), compressionError),
    .init(
        "hpack/6.3", "a table over its limit", head([0x3f, 0xe1, 0xff, 0x03] + Block.get("/")),
        compressionError),
]

@Suite struct HTTP2ConformanceTests {
    /// 5.1.1 "a stream lower than the last" is not among them: nghttp2 takes it for a stream that
    /// was closed, of which frames may be under way, and ignores it.
    @Test(arguments: generic + frames + definitions + messages + hpack)
    func rule(rule: ConformanceCase) async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            let mark = Frame.raw(type: 6, Array("the end.".utf8))
            try? await client.send(ByteBuffer(bytes: Frame.opening + rule.bytes + mark))
            func frames() -> [(type: UInt8, flags: UInt8, payload: [UInt8])] {
                Frame.parse(client.bytes)
            }
            func goesOn() -> Bool {
                frames().contains { $0.type == 6 && $0.payload == Array("the end.".utf8) }
            }
            while !client.isClosed, !goesOn() { try await Task.sleep(for: .milliseconds(1)) }
            func resets(_ codes: [UInt32]) -> Bool {
                frames().contains { $0.type == 3 && codes.contains(UInt32($0.payload.last ?? 0)) }
            }
            switch rule.expectation {
            case .goesOn: #expect(goesOn())
            case .answered:
                while !client.isClosed, !frames().contains(where: { $0.type == 1 }) {
                    try await Task.sleep(for: .milliseconds(1))
                }
                // ":status: 200" is the static table's entry 8.
                #expect(frames().first { $0.type == 1 }?.payload.first == 0x88)
                #expect(goesOn())
            case .connectionError(let codes):
                #expect(codes.contains(Frame.goAwayCode(in: client.bytes) ?? .max))
                _ = try await client.readToEnd()
            case .streamError(let codes):
                while !client.isClosed, !resets(codes) {
                    try await Task.sleep(for: .milliseconds(1))
                }
                #expect(resets(codes) || codes.contains(Frame.goAwayCode(in: client.bytes) ?? .max))
            case .settingsAcknowledged:
                #expect(frames().contains { $0.type == 4 && $0.flags == 1 })
            }
            try await client.close()
        }
    }

    @Test func spoiltPrefaceEndsTheConnection() async throws {
        try await TestServer.run { server in
            #expect(
                try await RawClient.ask(server.port, "INVALID CONNECTION PREFACE\r\n\r\n") == "")
            let late = "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"
            let answer = try await RawClient.ask(server.port, late)
            #expect(!answer.contains("HTTP/1.1"))
        }
    }
}
