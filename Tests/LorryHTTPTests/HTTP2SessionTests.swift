import HTTPTypes
import LorryHTTP
import NIOCore
import Testing

private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

private func pair(_ options: HTTP2Options = HTTP2Options()) throws -> (
    client: HTTP2Session, server: HTTP2Session
) {
    (
        try HTTP2Session(role: .client, options: HTTP2Options(), now: start),
        try HTTP2Session(role: .server, options: options, now: start)
    )
}

private func output(_ session: HTTP2Session) throws -> ByteBuffer {
    var buffer = ByteBuffer()
    try session.takeOutput(into: &buffer, limit: .max)
    return buffer
}

/// Carries bytes both ways until neither side has any. - Returns: the server's and client's events.
private func exchange(
    _ client: HTTP2Session, _ server: HTTP2Session
) throws -> (server: [HTTP2Event], client: [HTTP2Event]) {
    while true {
        let up = try output(client)
        if up.readableBytes > 0 { try server.receive(up, now: start) }
        let down = try output(server)
        if down.readableBytes > 0 { try client.receive(down, now: start) }
        if up.readableBytes == 0, down.readableBytes == 0 { break }
    }
    return (server.takeEvents(), client.takeEvents())
}

private func get(_ path: String, fields: HTTPFields = [:]) -> HTTPRequest {
    HTTPRequest(method: .get, scheme: "http", authority: "a", path: path, headerFields: fields)
}

private func bodyBytes(_ events: [HTTP2Event]) -> [UInt8] {
    events.flatMap { event -> [UInt8] in
        if case .body(_, let bytes) = event { Array(bytes.readableBytesView) } else { [] }
    }
}

private func frame(type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8]) -> [UInt8]
{
    [0, UInt8(payload.count >> 8), UInt8(payload.count & 255), type, flags]
        + withUnsafeBytes(of: stream.bigEndian, Array.init) + payload
}

private let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

@Suite struct HTTP2SessionTests {
    @Test func requestAndResponseWithBodiesAndTrailers() throws {
        let (client, server) = try pair()
        var request = get("/echo")
        request.method = .post
        let stream = try client.submitRequest(request, endOfStream: false)
        client.appendBody(ByteBuffer(string: "hello "), stream: stream)
        client.appendBody(ByteBuffer(string: "world"), stream: stream)
        client.finishBody(stream: stream)
        let events = try exchange(client, server).server
        guard case .head(stream, let head, endOfStream: false) = events.first else {
            Issue.record("no head: \(events)")
            return
        }
        #expect(head.request?.method == .post)
        #expect(head.request?.path == "/echo")
        #expect(head.request?.authority == "a")
        #expect(bodyBytes(events) == Array("hello world".utf8))
        #expect(server.isRemoteClosed(stream: stream))

        let response = HTTPResponse(
            status: .ok, headerFields: [.contentType: "text/plain", .connection: "close"])
        try server.submitResponse(response, stream: stream, endOfStream: false)
        server.appendBody(ByteBuffer(string: "answer"), stream: stream)
        server.finishBody(stream: stream, trailers: [.eTag: "x"])
        let answers = try exchange(client, server)
        guard case .head(stream, let answer, endOfStream: false) = answers.client.first else {
            Issue.record("no answer: \(answers.client)")
            return
        }
        #expect(answer.status == 200)
        #expect(answer.fields[.contentType] == "text/plain")
        #expect(answer.fields[.connection] == nil)
        #expect(bodyBytes(answers.client) == Array("answer".utf8))
        #expect(
            answers.server.contains { if case .messageSent(stream) = $0 { true } else { false } })
        #expect(
            answers.server.contains {
                if case .closed(stream, 0, byPeer: false) = $0 { true } else { false }
            })
    }

    @Test func everySplitOfTheBytesGivesTheSameRequest() throws {
        let (client, _) = try pair()
        var request = get("/split?x=1", fields: [.userAgent: "test", .accept: "*/*"])
        request.method = .put
        let stream = try client.submitRequest(request, endOfStream: false)
        client.appendBody(ByteBuffer(string: "0123456789"), stream: stream)
        client.finishBody(stream: stream)
        let bytes = try output(client)
        for cut in 0...bytes.readableBytes {
            let server = try HTTP2Session(role: .server, options: HTTP2Options(), now: start)
            var first = bytes
            let head = first.readSlice(length: cut)
            try server.receive(head ?? ByteBuffer(), now: start)
            try server.receive(first, now: start)
            let events = server.takeEvents()
            guard case .head(1, let head, endOfStream: false) = events.first else {
                Issue.record("cut \(cut): \(events)")
                continue
            }
            #expect(head.request?.headerFields[.userAgent] == "test")
            #expect(bodyBytes(events) == Array("0123456789".utf8))
            #expect(events.contains { if case .endOfBody(1) = $0 { true } else { false } })
        }
    }

    @Test func bodyWaitsForTheConsumer() throws {
        var options = HTTP2Options()
        options.streamWindow = 1000
        let (client, server) = try pair(options)
        _ = try exchange(client, server)
        var request = get("/upload")
        request.method = .post
        let stream = try client.submitRequest(request, endOfStream: false)
        client.appendBody(ByteBuffer(repeating: 7, count: 2500), stream: stream)
        client.finishBody(stream: stream)
        var received = bodyBytes(try exchange(client, server).server).count
        #expect(received == 1000)
        #expect(bodyBytes(try exchange(client, server).server).isEmpty)
        for _ in 0..<2 {
            server.consume(1000, stream: stream)
            received += bodyBytes(try exchange(client, server).server).count
        }
        #expect(received == 2500)
    }

    @Test func responseWaitsForTheClientsWindow() throws {
        let (client, server) = try pair()
        let stream = try client.submitRequest(get("/"), endOfStream: true)
        _ = try exchange(client, server)
        try server.submitResponse(HTTPResponse(status: .ok), stream: stream, endOfStream: false)
        let size = client.options.streamWindow + 5000
        server.appendBody(ByteBuffer(repeating: 1, count: size), stream: stream)
        let events = try exchange(client, server)
        let sent = events.server.reduce(0) { sum, event in
            if case .bodySent(stream, let count) = event { sum + count } else { sum }
        }
        #expect(sent == client.options.streamWindow)
        #expect(bodyBytes(events.client).count == sent)
    }

    @Test func clientResetIsSeen() throws {
        let (client, server) = try pair()
        let stream = try client.submitRequest(get("/"), endOfStream: true)
        _ = try exchange(client, server)
        client.reset(stream: stream, code: .cancel)
        let events = try exchange(client, server).server
        #expect(
            events.contains {
                if case .closed(stream, 8, byPeer: true) = $0 { true } else { false }
            })
    }

    @Test func tooLargeHeadIsDroppedButAnswered() throws {
        var options = HTTP2Options()
        options.headerFieldCount = 10
        let (client, server) = try pair(options)
        _ = try exchange(client, server)
        var fields = HTTPFields()
        for index in 0..<20 {
            fields.append(HTTPField(name: try #require(HTTPField.Name("x-\(index)")), value: "v"))
        }
        let stream = try client.submitRequest(get("/", fields: fields), endOfStream: true)
        let events = try exchange(client, server).server
        #expect(
            events.contains {
                if case .oversizedHead(stream, method: "GET") = $0 { true } else { false }
            })
        #expect(!events.contains { if case .head = $0 { true } else { false } })
    }

    @Test func upgradeMakesStreamOne() throws {
        let (_, server) = try pair()
        // SETTINGS_MAX_CONCURRENT_STREAMS 100
        try server.upgrade(settings: [0, 3, 0, 0, 0, 100], isHead: false)
        try server.submitResponse(HTTPResponse(status: .ok), stream: 1, endOfStream: true)
        let bytes = try output(server)
        // The server's SETTINGS come first, then HEADERS on stream 1.
        #expect(bytes.getInteger(at: 3, as: UInt8.self) == 4)
        #expect(throws: HTTP2SessionError.self) {
            let other = try HTTP2Session(role: .server, options: HTTP2Options(), now: start)
            try other.upgrade(settings: [1, 2, 3], isHead: false)
        }
    }

    @Test func gracefulEndLetsRunningStreamsFinish() throws {
        let (client, server) = try pair()
        let stream = try client.submitRequest(get("/"), endOfStream: true)
        _ = try exchange(client, server)
        server.announceShutdown()
        let events = try exchange(client, server).server
        #expect(events.contains { if case .pingAcknowledged = $0 { true } else { false } })
        server.refuseNewStreams()
        try server.submitResponse(HTTPResponse(status: .ok), stream: stream, endOfStream: true)
        let answers = try exchange(client, server).client
        #expect(answers.contains { if case .head(stream, _, _) = $0 { true } else { false } })
        #expect(!server.isAlive)
    }

    @Test(arguments: [
        ("ping", frame(type: 6, [0, 0, 0, 0, 0, 0, 0, 0])), ("settings", frame(type: 4, [])),
        ("priority", frame(type: 2, stream: 1, [0, 0, 0, 0, 16])),
        ("window_update", frame(type: 8, [0, 0, 0, 1])),
    ])
    func floodsEndTheConnection(kind: String, flood: [UInt8]) throws {
        let (_, server) = try pair()
        try server.receive(ByteBuffer(bytes: preface + frame(type: 4, [])), now: start)
        var seen: [String] = []
        for _ in 0..<5000 where seen.isEmpty {
            try server.receive(ByteBuffer(bytes: flood), now: start)
            _ = try output(server)
            for case .abuse(let kind) in server.takeEvents() { seen.append(kind.rawValue) }
        }
        #expect(seen == [kind])
        #expect(!server.isAlive)
    }

    @Test func emptyDataFloodEndsTheConnection() throws {
        let (client, server) = try pair()
        var request = get("/")
        request.method = .post
        _ = try client.submitRequest(request, endOfStream: false)
        _ = try exchange(client, server)
        var seen: [AbuseBudget.Kind] = []
        for _ in 0..<500 where seen.isEmpty {
            try server.receive(ByteBuffer(bytes: frame(type: 0, stream: 1, [])), now: start)
            for case .abuse(let kind) in server.takeEvents() { seen.append(kind) }
        }
        #expect(seen == [.emptyData])
    }

    /// The client makes the server reset its streams: a window update that overflows on each.
    @Test func resetsThatTheServerIsMadeToSendAreCounted() throws {
        let (client, server) = try pair()
        var seen: [AbuseBudget.Kind] = []
        var resets = 0
        for _ in 0..<500 where seen.isEmpty {
            let stream = try client.submitRequest(get("/"), endOfStream: true)
            try server.receive(try output(client), now: start)
            let update = frame(type: 8, stream: UInt32(bitPattern: stream), [0x7f, 255, 255, 255])
            try server.receive(ByteBuffer(bytes: update), now: start)
            let answer = try output(server)
            try server.receive(ByteBuffer(), now: start)
            try client.receive(answer, now: start)
            for event in server.takeEvents() {
                if case .abuse(let kind) = event { seen.append(kind) }
                if case .resetByProtocolError = event { resets += 1 }
            }
        }
        #expect(seen == [.serverReset])
        #expect(resets > 90)
    }

    /// A window that opens byte by byte makes a DATA frame of each byte.
    @Test func tinyWindowsAreCounted() throws {
        let (_, server) = try pair()
        let ask =
            preface + frame(type: 4, [0, 4, 0, 0, 0, 0])
            + frame(type: 1, flags: 5, stream: 1, [0x82, 0x86, 0x84, 0x01, 1, 97])
        try server.receive(ByteBuffer(bytes: ask), now: start)
        try server.submitResponse(HTTPResponse(status: .ok), stream: 1, endOfStream: false)
        server.appendBody(ByteBuffer(repeating: 1, count: 10_000), stream: 1)
        _ = try output(server)
        var count = 0
        var seen: [AbuseBudget.Kind] = []
        while seen.isEmpty, count < 5000 {
            let update = frame(type: 8, stream: 1, [0, 0, 0, 1])
            try server.receive(ByteBuffer(bytes: update), now: start)
            _ = try output(server)
            for case .abuse(let kind) in server.takeEvents() { seen.append(kind) }
            count += 1
        }
        #expect(seen == [.tinyWindow])
        #expect(count == AbuseBudget.Allowances()[.tinyWindow].burst + 1)
    }

    /// Whatever the splits, the gate gives the same verdict at the same byte.
    @Test func everySplitOfAFloodEndsAtTheSameFrame() throws {
        let bytes =
            preface + frame(type: 4, [])
            + (0..<3).flatMap { _ in frame(type: 0x77, [1, 2, 3]) }
            + frame(type: 2, stream: 0, [0, 0, 0, 9, 1])
            + frame(type: 6, [0, 0, 0, 0, 0, 0, 0, 0])
        for cut in 0...bytes.count {
            var gate = HTTP2FrameGate(skipsPreface: true)
            var verdict: HTTP2FrameGate.Verdict?
            var taken = 0
            for part in [bytes[..<cut], bytes[cut...]] where verdict == nil {
                let result = gate.judge(
                    ByteBuffer(bytes: part).readableBytesView, isGone: { _ in false },
                    spend: { _ in true })
                taken += result.byteCount
                verdict = result.verdict
            }
            #expect(verdict == .breach(.protocolError))
            // 24 of the preface, four frames, and 12 of the 13 bytes that tell.
            #expect(taken == 24 + 9 + 3 * 12 + 12)
        }
    }

    @Test func garbageIsAnErrorNotACrash() throws {
        var generator = SplitMix(seed: 42)
        for _ in 0..<300 {
            let server = try HTTP2Session(role: .server, options: HTTP2Options(), now: start)
            var bytes = preface + frame(type: 4, [])
            for _ in 0..<20 {
                let payload = (0..<Int.random(in: 0..<40, using: &generator)).map { _ in
                    UInt8.random(in: 0...255, using: &generator)
                }
                bytes += frame(
                    type: UInt8.random(in: 0...10, using: &generator),
                    flags: UInt8.random(in: 0...255, using: &generator),
                    stream: UInt32.random(in: 0...5, using: &generator), payload)
            }
            do {
                try server.receive(ByteBuffer(bytes: bytes), now: start)
                _ = try output(server)
            } catch is HTTP2SessionError {}
        }
    }
}

/// A small seeded generator, so that a failure can be repeated.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
