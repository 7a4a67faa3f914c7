/// A way to make a server work for nothing: what a client sends, and how it is to end.
public struct Abuse: Sendable, CustomStringConvertible {
    /// How the server ends it.
    public enum Ending: Sendable, Equatable {
        /// GOAWAY with this code (RFC 9113 §7), then the end of the connection.
        case goAway(UInt32)
        /// An HTTP/1.1 answer with this status, then the end of the connection.
        case status(Int)
    }

    public let name: String
    /// Sent once, after HTTP/2's preface where it is HTTP/2.
    public let opening: [UInt8]
    /// What is sent over and over; the number counts from 0.
    public let unit: @Sendable (Int) -> [UInt8]
    /// As in `lorry_http_refusals_total{reason}`.
    public let reason: String
    public let ending: Ending

    public var description: String { name }
    public var isHTTP2: Bool { if case .goAway = ending { true } else { false } }

    init(
        _ name: String, opening: [UInt8] = [], reason: String, ending: Ending,
        unit: @escaping @Sendable (Int) -> [UInt8]
    ) {
        self.name = name
        self.opening = opening
        self.unit = unit
        self.reason = reason
        self.ending = ending
    }

    static func http2(
        _ name: String, _ reason: String, code: UInt32 = 11, opening: [UInt8] = [],
        _ unit: @escaping @Sendable (Int) -> [UInt8]
    ) -> Abuse {
        Abuse(
            name, opening: Frame.opening + opening, reason: reason, ending: .goAway(code),
            unit: unit)
    }

    static func http1(
        _ name: String, _ reason: String, status: Int, opening: String,
        _ unit: @escaping @Sendable (Int) -> String
    ) -> Abuse {
        Abuse(
            name, opening: Array(opening.utf8), reason: reason, ending: .status(status)
        ) { Array(unit($0).utf8) }
    }

    /// - Parameters:
    ///   - post: a route that reads its body.
    ///   - large: a route whose answer has some thousand bytes.
    public static func all(post: String, large: String) -> [Abuse] {
        resets(post: post) + floods(post: post) + heads() + windows(large: large)
            + http1(post: post)
    }

    /// The stream of the unit with this number; 1 is the opening's.
    private static func stream(_ number: Int) -> UInt32 { UInt32(2 * number + 3) }

    // MARK: resets

    /// MadeYouReset (CVE-2025-8671) in each form that its finders list, and Rapid Reset
    /// (CVE-2023-44487).
    private static func resets(post: String) -> [Abuse] {
        func madeYouReset(
            _ what: String, _ reason: String = "flood_server_reset", code: UInt32 = 11,
            head: [UInt8] = Block.post(post), flags: UInt8 = Frame.endHeaders,
            _ offence: @escaping @Sendable (UInt32) -> [UInt8]
        ) -> Abuse {
            http2("made to reset: " + what, reason, code: code) { number in
                Frame.headers(head, stream: stream(number), flags: flags) + offence(stream(number))
            }
        }
        let ended = Frame.endHeaders | Frame.endStream
        return [
            http2("rapid reset", "flood_client_reset") {
                Frame.headers(Block.get("/health"), stream: stream($0))
                    + Frame.reset(stream: stream($0))
            },
            madeYouReset("window update of 0", "protocol_error", code: 1) {
                Frame.windowUpdate(stream: $0, by: 0)
            },
            madeYouReset("window overflow") { Frame.windowUpdate(stream: $0, by: 0x7fff_ffff) },
            madeYouReset("own dependency", "protocol_error", code: 1) {
                Frame.priority(stream: $0, dependsOn: $0)
            },
            madeYouReset("short PRIORITY", "protocol_error", code: 6) {
                Frame.raw(type: 2, stream: $0, [0, 0, 0, 0])
            },
            madeYouReset("HEADERS that depend on themselves", head: [], flags: 0x4) { stream in
                Frame.headers(
                    [0, 0, 0, UInt8(stream & 255), 15], stream: stream, flags: 0x24)
            },
            madeYouReset("DATA after the end", "protocol_error", code: 5, flags: ended) {
                Frame.data([1], stream: $0)
            },
            madeYouReset("HEADERS after the end", "protocol_error", code: 5, flags: ended) {
                Frame.headers(Block.field("x", "y"), stream: $0)
            },
            madeYouReset(
                "more than content-length",
                head: Block.post(post) + Block.field("content-length", "1")
            ) { Frame.data([1, 2], stream: $0) },
            madeYouReset(
                "less than content-length",
                head: Block.post(post) + Block.field("content-length", "9")
            ) { Frame.data([1, 2], stream: $0, flags: Frame.endStream) },
            madeYouReset("no path", head: [0x82, 0x86]) { _ in [] },
            madeYouReset("connection field", head: Block.post(post) + Block.field("te", "x")) { _ in
                []
            },
            madeYouReset("upper case", head: Block.post(post) + Block.field("X", "y")) { _ in [] },
            madeYouReset("trailers with :path") {
                Frame.headers(Block.get("/"), stream: $0)
            },
            madeYouReset("trailers without the end") {
                Frame.headers(Block.field("x", "y"), stream: $0, flags: Frame.endHeaders)
            },
            madeYouReset("padding over the length", "protocol_error", code: 1) {
                Frame.data([9, 0], stream: $0, flags: Frame.padded)
            },
            http2("streams beyond the limit", "flood_server_reset") {
                Frame.headers(Block.post(post), stream: stream($0), flags: Frame.endHeaders)
            },
        ]
    }

    // MARK: floods of frames

    private static func floods(post: String) -> [Abuse] {
        let open = Frame.headers(Block.post(post), stream: 1, flags: Frame.endHeaders)
        let early = Frame.headers(Block.get("/health"), stream: 1, flags: Frame.endHeaders)
        return [
            http2(
                "CONTINUATION", "flood_continuation",
                opening: Frame.headers(Block.get("/"), stream: 1, flags: Frame.endStream)
            ) { _ in Frame.continuation([], stream: 1) },
            http2("PING", "flood_ping") { _ in Frame.ping() },
            http2("PING with ACK", "flood_acknowledgement") { _ in Frame.ping(flags: 1) },
            http2("SETTINGS", "flood_settings") { _ in Frame.settings([(3, 100)]) },
            http2("SETTINGS with ACK", "protocol_error", code: 1) { _ in
                Frame.settingsAcknowledgement
            },
            http2("SETTINGS of many entries", "protocol_error") { _ in
                Frame.settings((0..<1000).map { _ in (1, 4096) })
            },
            http2("empty DATA", "flood_empty_data", opening: open) { _ in
                Frame.data([], stream: 1)
            },
            http2("DATA of padding", "flood_empty_data", opening: open) { _ in
                Frame.data([3, 0, 0, 0], stream: 1, flags: Frame.padded)
            },
            http2("PRIORITY", "flood_priority") { _ in Frame.priority(stream: 3, dependsOn: 1) },
            http2("PRIORITY_UPDATE", "flood_priority") { _ in Frame.priorityUpdate(stream: 3) },
            http2("unknown frames", "flood_unknown_frame") { _ in Frame.raw(type: 0xbe) },
            http2("WINDOW_UPDATE", "flood_window_update") { _ in
                Frame.windowUpdate(stream: 0, by: 1)
            },
            http2("GOAWAY", "flood_goaway") { _ in Frame.goAway() },
            http2("RST_STREAM of an idle stream", "protocol_error", code: 1) { _ in
                Frame.reset(stream: 99)
            },
            http2("PUSH_PROMISE", "protocol_error", code: 1) { _ in
                Frame.pushPromise(stream: 1, promised: 2)
            },
            http2("DATA of a stream that was answered early", "flood_closed_stream", opening: early)
            {
                _ in Frame.data([1], stream: 1)
            },
            http2("frame over the size", "protocol_error", code: 6) { _ in
                Frame.raw(type: 0, stream: 1, length: 20_000)
            },
        ]
    }

    // MARK: heads

    private static func heads() -> [Abuse] {
        let long = String(repeating: "v", count: 3900)
        let cookies = (0..<200).flatMap { Block.field("cookie", "c\($0)=1") }
        let large = (0..<4).flatMap { Block.field("x-\($0)", String(repeating: "y", count: 3000)) }
        return [
            // One byte stands for 4 KB of the dynamic table.
            http2(
                "HPACK bomb", "flood_oversized_head",
                opening: Frame.headers(
                    Block.get("/health") + Block.indexedField("bomb", long), stream: 1)
            ) { number in
                Frame.headers(
                    Block.get("/health") + [UInt8](repeating: 0xbe, count: 16_000),
                    stream: stream(number))
            },
            http2("cookies", "flood_oversized_head") {
                Frame.headers(Block.get("/health") + cookies, stream: stream($0))
            },
            http2("large heads", "flood_oversized_head") { number in
                Frame.headers(Block.get("/health") + large, stream: stream(number), flags: 1)
                    + Frame.continuation(large, stream: stream(number))
                    + Frame.continuation(large, stream: stream(number), flags: Frame.endHeaders)
            },
            http2("table sizes without end", "protocol_error", code: 9) { number in
                Frame.headers(
                    Block.get("/health") + [UInt8](repeating: 0x20, count: 16_000),
                    stream: stream(number))
            },
        ]
    }

    // MARK: windows

    private static func windows(large: String) -> [Abuse] {
        [
            http2(
                "windows of one byte", "flood_window_update",
                opening: Frame.settings([(4, 0)])
                    + Frame.headers(Block.get(large), stream: 1)
            ) { _ in Frame.windowUpdate(stream: 1, by: 1) }
        ]
    }

    // MARK: HTTP/1.1

    private static func http1(post: String) -> [Abuse] {
        let chunked =
            "POST \(post) HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            + "transfer-encoding: chunked\r\n\r\n"
        let filler = String(repeating: "x", count: 1000)
        let emptyLines = String(repeating: "\r\n", count: 500)
        return [
            http1("chunk extensions", "flood_framing", status: 400, opening: chunked) { _ in
                "1;\(filler)\r\n \r\n"
            },
            http1("one chunk size without end", "flood_framing", status: 400, opening: chunked) {
                _ in
                String(repeating: "0", count: 1000)
            },
            http1("a body without end", "body_too_large", status: 413, opening: chunked) { _ in
                "3e8\r\n\(filler)\r\n"
            },
            http1("trailers", "headers_too_large", status: 431, opening: chunked + "0\r\n") {
                "x-\($0): \(filler)\r\n"
            },
            http1("fields", "headers_too_large", status: 431, opening: "GET / HTTP/1.1\r\n") {
                "x-\($0): \(filler)\r\n"
            },
            http1(
                "one field without end", "headers_too_large", status: 431,
                opening: "GET / HTTP/1.1\r\nx: "
            ) { _ in filler },
            http1("a line without end", "uri_too_long", status: 414, opening: "GET /") { _ in filler
            },
            http1("empty lines", "bad_request", status: 400, opening: "\r\n") { _ in emptyLines },
        ]
    }
}
