import CNghttp2
import HTTPTypes
import NIOCore

/// One HTTP/2 connection without its socket: bytes in, bytes and events out (RFC 9113).
///
/// A thin class around nghttp2. The owner feeds `receive`, carries out `takeEvents`, and sends what
/// `takeOutput` gives while the socket takes it. Flow control is manual: the peer's window opens
/// again when `consume` says that a body byte was used.
///
/// Not Sendable: one event loop owns it.
package final class HTTP2Session {
    package enum Role: Sendable { case server, client }

    /// nghttp2's session. Safe because it is made in `init`, freed once in `deinit`, never handed
    /// out, and its callbacks run only inside calls that this class makes, so the unretained
    /// pointer to `self` that they get is valid whenever they run.
    private var session: OpaquePointer?
    let role: Role
    package let options: HTTP2Options
    var streams: [Int32: HTTP2StreamState] = [:]
    var events: [HTTP2Event] = []
    var budget: AbuseBudget
    var now: NIODeadline
    /// The highest stream that the peer has opened.
    var lastStream: Int32 = 0
    /// Whether the DATA frame that goes out next allows the peer more window updates.
    var isWorthCredit = true
    /// DATA frames below this, made so small by the peer's windows alone, are counted.
    static let tinyWindowByteCount = 256
    private var gate = HTTP2FrameGate(skipsPreface: true)
    private var abuse: AbuseBudget.Kind?
    /// GOAWAY is queued or out; nothing of the peer is listened to any more.
    private(set) var isEnding = false
    /// Streams that the application itself reset: those do not count against the peer.
    var resetByApplication: Set<Int32> = []

    package init(role: Role, options: HTTP2Options, now: NIODeadline) throws {
        self.role = role
        self.options = options
        self.now = now
        budget = AbuseBudget(options.abuse, at: now)
        try open()
        try check(submitSettings(), "submitting SETTINGS")
    }

    deinit {
        nghttp2_session_del(session)
    }

    // MARK: bytes

    /// Takes bytes of the peer. Synchronous and without I/O: what comes of it is in ``takeEvents()``
    /// and ``takeOutput(into:limit:)``.
    ///
    /// - Throws: `HTTP2SessionError` when the connection is beyond repair.
    package func receive(_ bytes: ByteBuffer, now: NIODeadline) throws {
        guard !isEnding else { return }
        self.now = now
        guard role == .server else { return try feed(bytes) }
        let (byteCount, verdict) = gate.judge(
            bytes.readableBytesView,
            isGone: { $0 <= lastStream && streams[$0] == nil },
            spend: { budget.spend($0, at: now) })
        try feed(bytes.getSlice(at: bytes.readerIndex, length: byteCount) ?? ByteBuffer())
        switch verdict {
        case .flood(let kind): abuse = abuse ?? kind
        case .breach(let code):
            if !isEnding, abuse == nil {
                events.append(.connectionError)
                terminate(code: code)
            }
        case nil: break
        }
        settleAbuse()
    }

    private func feed(_ bytes: ByteBuffer) throws {
        let result = bytes.withUnsafeReadableBytes { bytes in
            nghttp2_session_mem_recv(
                session, bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count)
        }
        try check(CInt(clamping: result), "receiving")
    }

    /// Appends bytes for the peer to `buffer`, until there are none or `limit` is reached.
    package func takeOutput(into buffer: inout ByteBuffer, limit: Int) throws {
        while buffer.readableBytes < limit {
            var pointer: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(session, &pointer)
            try check(CInt(clamping: count), "sending")
            if count > 0, let pointer {
                // Safe because nghttp2 keeps these `count` bytes until its next call.
                buffer.writeBytes(UnsafeRawBufferPointer(start: pointer, count: count))
            }
            // What went out may have overspent the budget: then GOAWAY follows it.
            if !settleAbuse(), count == 0 { return }
        }
    }

    /// Ends the connection where the peer has overspent. - Returns: whether it ended just now.
    @discardableResult
    private func settleAbuse() -> Bool {
        guard let abuse, !isEnding else { return false }
        events.append(.abuse(abuse))
        terminate(code: .enhanceYourCalm)
        return true
    }

    /// How many frames the peer has begun, and whether it is inside one that it should finish soon.
    package var frameProgress: (count: Int, isInside: Bool) {
        (gate.frameCount, gate.isInsideFrame)
    }

    package func takeEvents() -> [HTTP2Event] {
        defer { events = [] }
        return events
    }

    /// False when nothing more can come or go: the connection can be closed.
    package var isAlive: Bool {
        nghttp2_session_want_read(session) != 0 || nghttp2_session_want_write(session) != 0
    }

    /// Frames waiting to be sent, acknowledgements included.
    package var queuedFrameCount: Int { nghttp2_session_get_outbound_queue_size(session) }

    // MARK: messages

    /// Makes stream 1 of a request that arrived with `Upgrade: h2c` (RFC 7540 §3.2).
    package func upgrade(settings: [UInt8], isHead: Bool) throws {
        try check(
            nghttp2_session_upgrade2(session, settings, settings.count, isHead ? 1 : 0, nil),
            "upgrading")
        streams[1] = HTTP2StreamState()
    }

    /// Sends a response's head; with `endOfStream` there is no body.
    package func submitResponse(
        _ response: HTTPResponse, stream: Int32, endOfStream: Bool
    ) throws {
        var fields = HTTP2FieldBlock()
        fields.append(":status", String(response.status.code))
        fields.append(response.headerFields)
        try fields.withUnsafeFields { fields in
            try withBodyProvider(endOfStream ? nil : stream) { provider in
                try check(
                    nghttp2_submit_response(
                        session, stream, fields.baseAddress, fields.count, provider),
                    "submitting a response")
            }
        }
    }

    /// Sends 100 (Continue).
    package func submitContinue(stream: Int32) throws {
        var fields = HTTP2FieldBlock()
        fields.append(":status", "100")
        try fields.withUnsafeFields { fields in
            try check(
                nghttp2_submit_headers(
                    session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream, nil, fields.baseAddress,
                    fields.count, nil),
                "submitting 100 (Continue)")
        }
    }

    /// Sends a request's head as a client. - Returns: its stream.
    package func submitRequest(_ request: HTTPRequest, endOfStream: Bool) throws -> Int32 {
        var fields = HTTP2FieldBlock()
        fields.append(":method", request.method.rawValue)
        fields.append(":scheme", request.scheme ?? "http")
        fields.append(":authority", request.authority ?? "")
        fields.append(":path", request.path ?? "/")
        fields.append(request.headerFields)
        let stream = Int32(bitPattern: nghttp2_session_get_next_stream_id(session))
        streams[stream] = HTTP2StreamState()
        return try fields.withUnsafeFields { fields in
            try withBodyProvider(endOfStream ? nil : stream) { provider in
                let stream = nghttp2_submit_request(
                    session, nil, fields.baseAddress, fields.count, provider, nil)
                try check(stream, "submitting a request")
                return stream
            }
        }
    }

    /// Queues body bytes; they go out as the peer's windows allow.
    package func appendBody(_ bytes: ByteBuffer, stream: Int32) {
        guard let state = streams[stream], bytes.readableBytes > 0 else { return }
        state.outbound.append(bytes)
        resume(state, stream: stream)
    }

    /// Ends the message of which the head was submitted without `endOfStream`.
    package func finishBody(stream: Int32, trailers: HTTPFields? = nil) {
        guard let state = streams[stream] else { return }
        state.isFinished = true
        state.trailers = trailers
        resume(state, stream: stream)
    }

    /// Says that the application used `byteCount` bytes of the stream's body.
    package func consume(_ byteCount: Int, stream: Int32) {
        guard let state = streams[stream] else { return }
        let byteCount = min(byteCount, state.unconsumedByteCount)
        state.unconsumedByteCount -= byteCount
        nghttp2_session_consume(session, stream, byteCount)
    }

    package func reset(stream: Int32, code: HTTP2ErrorCode) {
        guard streams[stream] != nil else { return }
        resetByApplication.insert(stream)
        nghttp2_submit_rst_stream(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream, code.rawValue)
    }

    /// Whether the peer has ended its side of the stream.
    package func isRemoteClosed(stream: Int32) -> Bool {
        nghttp2_session_get_stream_remote_close(session, stream) != 0
    }

    // MARK: the connection

    /// First half of a graceful end: GOAWAY that still allows streams under way, and a PING whose
    /// answer says that the peer has read it (RFC 9113 §6.8).
    package func announceShutdown() {
        nghttp2_submit_shutdown_notice(session)
        nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil)
    }

    /// Second half: GOAWAY with the last stream that will be served.
    package func refuseNewStreams() {
        nghttp2_submit_goaway(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue),
            nghttp2_session_get_last_proc_stream_id(session), UInt32(NGHTTP2_NO_ERROR.rawValue),
            nil, 0)
    }

    /// Ends the connection once this GOAWAY is out.
    package func terminate(code: HTTP2ErrorCode) {
        isEnding = true
        nghttp2_session_terminate_session(session, code.rawValue)
    }

    package func ping() {
        nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil)
    }

    // MARK: inside

    func spend(_ kind: AbuseBudget.Kind) {
        guard role == .server, !budget.spend(kind, at: now) else { return }
        abuse = abuse ?? kind
    }

    /// Gives the connection's window back what a vanished stream left unread.
    func discardUnconsumed(_ byteCount: Int) {
        guard byteCount > 0 else { return }
        nghttp2_session_consume_connection(session, byteCount)
    }

    func submitTrailers(_ trailers: HTTPFields, stream: Int32) -> Bool {
        var fields = HTTP2FieldBlock()
        fields.append(trailers)
        return fields.withUnsafeFields { fields in
            nghttp2_submit_trailer(session, stream, fields.baseAddress, fields.count) == 0
        }
    }

    private func resume(_ state: HTTP2StreamState, stream: Int32) {
        guard state.isDeferred else { return }
        state.isDeferred = false
        nghttp2_session_resume_data(session, stream)
    }

    private func withBodyProvider<Result>(
        _ stream: Int32?, _ body: (UnsafePointer<nghttp2_data_provider>?) throws -> Result
    ) rethrows -> Result {
        guard stream != nil else { return try body(nil) }
        var provider = nghttp2_data_provider()
        provider.read_callback = HTTP2Callbacks.readBody
        return try withUnsafePointer(to: &provider) { try body($0) }
    }

    private func open() throws {
        var callbacks: OpaquePointer?
        var option: OpaquePointer?
        defer {
            nghttp2_session_callbacks_del(callbacks)
            nghttp2_option_del(option)
        }
        try check(nghttp2_session_callbacks_new(&callbacks), "making callbacks")
        try check(nghttp2_option_new(&option), "making options")
        HTTP2Callbacks.install(in: callbacks)
        nghttp2_option_set_no_auto_window_update(option, 1)
        nghttp2_option_set_stream_reset_rate_limit(
            option, UInt64(options.abuse[.clientReset].burst) * 2,
            UInt64(options.abuse[.clientReset].perSecond) * 2)
        // HTTP2FrameGate ends the connection before, and with GOAWAY.
        nghttp2_option_set_max_continuations(option, 16)
        nghttp2_option_set_max_outbound_ack(option, 1000)
        nghttp2_option_set_peer_max_concurrent_streams(option, 100)
        let me = Unmanaged.passUnretained(self).toOpaque()
        switch role {
        case .server:
            try check(nghttp2_session_server_new2(&session, callbacks, me, option), "opening")
        case .client:
            try check(nghttp2_session_client_new2(&session, callbacks, me, option), "opening")
        }
    }

    private func submitSettings() -> CInt {
        func entry(_ id: nghttp2_settings_id, _ value: Int) -> nghttp2_settings_entry {
            nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: UInt32(clamping: value))
        }
        let settings = [
            entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.concurrentStreamCount),
            entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.streamWindow),
            entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, options.headerByteCount),
            entry(
                role == .server
                    ? NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES : NGHTTP2_SETTINGS_ENABLE_PUSH,
                role == .server ? 1 : 0),
        ]
        let none = UInt8(NGHTTP2_FLAG_NONE.rawValue)
        let result = nghttp2_submit_settings(session, none, settings, settings.count)
        guard result == 0 else { return result }
        return nghttp2_session_set_local_window_size(
            session, none, 0, Int32(clamping: options.connectionWindow))
    }

    private func check(_ code: CInt, _ action: String) throws {
        guard code < 0 else { return }
        throw HTTP2SessionError(
            code: Int(code), message: "\(action): \(String(cString: nghttp2_strerror(code)))")
    }
}

/// What a session keeps for one open stream.
final class HTTP2StreamState {
    // Inbound.
    var head = HTTP2Head()
    var headByteCount = 0
    var headFieldCount = 0
    var isHeadOversized = false
    var isHeadDelivered = false
    var isResetByPeer = false
    var unconsumedByteCount = 0
    // Outbound.
    var outbound = CircularBuffer<ByteBuffer>()
    var isFinished = false
    var trailers: HTTPFields?
    /// nghttp2 asked for body bytes when there were none, and waits to be told of more.
    var isDeferred = false
}

/// Header fields laid out for nghttp2: one byte array, and names and values by range.
struct HTTP2FieldBlock {
    private var bytes: [UInt8] = []
    private var ranges: [(name: Range<Int>, value: Range<Int>)] = []

    mutating func append(_ name: String, _ value: String) {
        let start = bytes.count
        bytes.append(contentsOf: name.utf8)
        let middle = bytes.count
        bytes.append(contentsOf: value.utf8)
        ranges.append((start..<middle, middle..<bytes.count))
    }

    /// Appends fields, without those that belong to a connection (RFC 9113 §8.2.2).
    mutating func append(_ fields: HTTPFields) {
        for field in fields {
            switch field.name.canonicalName {
            case "connection", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection":
                continue
            case let name:
                append(name, field.value)
            }
        }
    }

    /// Safe because nghttp2 copies names and values during the call, and never writes to them.
    func withUnsafeFields<Result>(
        _ body: (UnsafeBufferPointer<nghttp2_nv>) throws -> Result
    ) rethrows -> Result {
        try bytes.withUnsafeBufferPointer { bytes in
            let start = UnsafeMutablePointer(mutating: bytes.baseAddress)
            let fields = ranges.map { range in
                nghttp2_nv(
                    name: start?.advanced(by: range.name.lowerBound),
                    value: start?.advanced(by: range.value.lowerBound),
                    namelen: range.name.count, valuelen: range.value.count,
                    flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue))
            }
            return try fields.withUnsafeBufferPointer(body)
        }
    }
}
