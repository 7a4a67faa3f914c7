import CNghttp2
import HTTPTypes
import NIOCore

/// The functions that nghttp2 calls. They never throw: each answers with one of nghttp2's codes.
///
/// Safe because every callback gets the session's unretained pointer as `userData`, and runs
/// inside a call that the session itself makes; pointers to names, values and data are read
/// before the callback returns.
enum HTTP2Callbacks {
    static func install(in callbacks: OpaquePointer?) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { _, frame, userData in
            guard let frame else { return 0 }
            session(userData)?.headersBegan(stream: frame.pointee.hd.stream_id)
            return 0
        }
        nghttp2_session_callbacks_set_on_header_callback(callbacks) {
            _, frame, name, nameCount, value, valueCount, _, userData in
            guard let frame else { return 0 }
            return session(userData)?.headerArrived(
                stream: frame.pointee.hd.stream_id,
                name: UnsafeBufferPointer(start: name, count: nameCount),
                value: UnsafeBufferPointer(start: value, count: valueCount)) ?? 0
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) {
            _, _, stream, bytes, count, userData in
            session(userData)?.dataArrived(
                stream: stream, bytes: UnsafeBufferPointer(start: bytes, count: count))
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, userData in
            guard let frame else { return 0 }
            session(userData)?.frameArrived(frame)
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks) { _, frame, userData in
            guard let frame else { return 0 }
            session(userData)?.frameSent(frame)
            return 0
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) {
            _, stream, code, userData in
            session(userData)?.streamClosed(stream: stream, code: code)
            return 0
        }
    }

    /// Fills a DATA frame from the stream's outbound buffer.
    static let readBody: nghttp2_data_source_read_callback = {
        _, stream, bytes, count, flags, _, userData in
        guard let owner = session(userData), let bytes, let flags else {
            return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
        }
        return owner.readBody(
            stream: stream, into: UnsafeMutableRawBufferPointer(start: bytes, count: count),
            flags: flags)
    }
}

private func session(_ userData: UnsafeMutableRawPointer?) -> HTTP2Session? {
    userData.map { Unmanaged<HTTP2Session>.fromOpaque($0).takeUnretainedValue() }
}

extension UInt8 {
    fileprivate func has(_ flag: nghttp2_flag) -> Bool { self & UInt8(flag.rawValue) != 0 }
}

extension HTTP2Session {
    private func type(_ type: nghttp2_frame_type) -> UInt8 { UInt8(type.rawValue) }

    fileprivate func headersBegan(stream: Int32) {
        guard streams[stream] == nil else { return }
        streams[stream] = HTTP2StreamState()
        lastStream = max(lastStream, stream)
        budget.creditRequest()
    }

    fileprivate func headerArrived(
        stream: Int32, name: UnsafeBufferPointer<UInt8>, value: UnsafeBufferPointer<UInt8>
    ) -> CInt {
        guard let state = streams[stream] else { return 0 }
        state.headByteCount += name.count + value.count
        state.headFieldCount += 1
        guard state.headByteCount <= options.headerByteCount,
            state.headFieldCount <= options.headerFieldCount
        else {
            if !state.isHeadOversized { spend(.oversizedHead) }
            state.isHeadOversized = true
            state.head.fields = HTTPFields()
            // A little over the bound is answered with 431; an HPACK bomb is not listened to, and
            // trailers have no answer of their own.
            return state.isHeadDelivered || state.headByteCount > 8 * options.headerByteCount
                ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue : 0
        }
        guard !state.isHeadDelivered else { return 0 }  // trailers
        add(String(decoding: name, as: UTF8.self), value, to: &state.head)
        return 0
    }

    private func add(_ name: String, _ value: UnsafeBufferPointer<UInt8>, to head: inout HTTP2Head)
    {
        switch name {
        case ":method": head.method = String(decoding: value, as: UTF8.self)
        case ":scheme": head.scheme = String(decoding: value, as: UTF8.self)
        case ":authority": head.authority = String(decoding: value, as: UTF8.self)
        case ":path": head.path = String(decoding: value, as: UTF8.self)
        case ":status": head.status = Int(String(decoding: value, as: UTF8.self))
        case "host": head.host = String(decoding: value, as: UTF8.self)
        default:
            if let name = HTTPField.Name(parsed: name) {
                head.fields.append(HTTPField(name: name, value: Array(value)))
            }
        }
    }

    fileprivate func dataArrived(stream: Int32, bytes: UnsafeBufferPointer<UInt8>) {
        guard let state = streams[stream], !bytes.isEmpty else { return }
        state.unconsumedByteCount += bytes.count
        events.append(.body(stream: stream, ByteBuffer(bytes: bytes)))
    }

    fileprivate func frameArrived(_ frame: UnsafePointer<nghttp2_frame>) {
        let header = frame.pointee.hd
        let endOfStream = header.flags.has(NGHTTP2_FLAG_END_STREAM)
        switch header.type {
        case type(NGHTTP2_HEADERS):
            guard let state = streams[header.stream_id] else { return }
            if !state.isHeadDelivered {
                state.isHeadDelivered = true
                if state.isHeadOversized {
                    events.append(
                        .oversizedHead(stream: header.stream_id, method: state.head.method))
                } else {
                    events.append(
                        .head(stream: header.stream_id, state.head, endOfStream: endOfStream))
                }
                state.head = HTTP2Head()
            } else if endOfStream {
                events.append(.endOfBody(stream: header.stream_id))
            }
        case type(NGHTTP2_DATA):
            if header.length > 0, header.length == frame.pointee.data.padlen, !endOfStream {
                spend(.emptyData)
            }
            if endOfStream { events.append(.endOfBody(stream: header.stream_id)) }
        case type(NGHTTP2_RST_STREAM):
            streams[header.stream_id]?.isResetByPeer = true
        case type(NGHTTP2_PING):
            if header.flags.has(NGHTTP2_FLAG_ACK) { events.append(.pingAcknowledged) }
        default: break
        }
    }

    fileprivate func frameSent(_ frame: UnsafePointer<nghttp2_frame>) {
        let header = frame.pointee.hd
        switch header.type {
        case type(NGHTTP2_DATA), type(NGHTTP2_HEADERS):
            if isWorthCredit { budget.creditSentData() }
            isWorthCredit = true
            if header.flags.has(NGHTTP2_FLAG_END_STREAM) {
                events.append(.messageSent(stream: header.stream_id))
            }
        case type(NGHTTP2_RST_STREAM):
            if resetByApplication.remove(header.stream_id) == nil {
                spend(.serverReset)
                events.append(.resetByProtocolError(stream: header.stream_id))
            }
        case type(NGHTTP2_GOAWAY):
            // nghttp2's own, for what it found.
            if !isEnding, frame.pointee.goaway.error_code != 0 { events.append(.connectionError) }
        default: break
        }
    }

    fileprivate func streamClosed(stream: Int32, code: UInt32) {
        guard let state = streams.removeValue(forKey: stream) else { return }
        resetByApplication.remove(stream)
        discardUnconsumed(state.unconsumedByteCount)
        events.append(.closed(stream: stream, code: code, byPeer: state.isResetByPeer))
    }

    fileprivate func readBody(
        stream: Int32, into bytes: UnsafeMutableRawBufferPointer,
        flags: UnsafeMutablePointer<UInt32>
    ) -> Int {
        guard let state = streams[stream] else {
            return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
        }
        var count = 0
        while count < bytes.count, var chunk = state.outbound.popFirst() {
            let part = min(chunk.readableBytes, bytes.count - count)
            chunk.readWithUnsafeReadableBytes { source in
                bytes[count..<(count + part)].copyBytes(from: source.prefix(part))
                return part
            }
            count += part
            if chunk.readableBytes > 0 { state.outbound.prepend(chunk) }
        }
        if count > 0 { events.append(.bodySent(stream: stream, byteCount: count)) }
        if count == bytes.count, count < Self.tinyWindowByteCount, !state.outbound.isEmpty {
            // The client's windows, not the response, made the frame this small; it shall not earn
            // the client more window updates.
            spend(.tinyWindow)
            isWorthCredit = false
        }
        if state.outbound.isEmpty, state.isFinished {
            flags.pointee |= UInt32(NGHTTP2_DATA_FLAG_EOF.rawValue)
            if let trailers = state.trailers, submitTrailers(trailers, stream: stream) {
                flags.pointee |= UInt32(NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue)
            }
        } else if count == 0 {
            state.isDeferred = true
            return Int(NGHTTP2_ERR_DEFERRED.rawValue)
        }
        return count
    }
}
