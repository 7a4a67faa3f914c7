import NIOCore

/// A frame's header (RFC 9113 §4.1).
package struct HTTP2FrameHeader: Sendable, Equatable {
    package static let byteCount = 9

    package var length: Int
    package var type: UInt8
    package var flags: UInt8
    package var stream: Int32

    package enum Kind: UInt8, Sendable {
        case data, headers, priority, reset, settings, pushPromise, ping, goAway, windowUpdate
        case continuation
        /// RFC 9218 §7.1.
        case priorityUpdate = 16
    }

    /// nil for types that nobody here knows, which are to be ignored (RFC 9113 §4.1).
    package var kind: Kind? { Kind(rawValue: type) }
    /// ACK of PING and SETTINGS has the same bit.
    package var endsStream: Bool { flags & 0x1 != 0 }
    package var isAcknowledgement: Bool { flags & 0x1 != 0 }
    package var endsHeaders: Bool { flags & 0x4 != 0 }

    /// - Parameter bytes: at least ``byteCount``; fewer give nil.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        length = Int(bytes[0]) << 16 | Int(bytes[1]) << 8 | Int(bytes[2])
        type = bytes[3]
        flags = bytes[4]
        stream = Self.stream(bytes[5...])
    }

    /// 31 bits of a stream's number; the first bit is reserved.
    fileprivate static func stream(_ bytes: ArraySlice<UInt8>) -> Int32 {
        Int32(bytes.prefix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) } & 0x7fff_ffff)
    }
}

/// Reads the frame headers of a client's bytes before nghttp2 gets them, and says at which one the
/// connection ends.
///
/// nghttp2 ignores in silence much that a client may not send, or may not send without end: frames
/// of streams that are gone, acknowledgements, GOAWAY, unknown types. And it has begun the work of a
/// frame when its callbacks tell of it. Here each frame is judged first, so that what one read can
/// cost has a bound.
package struct HTTP2FrameGate {
    /// Why the connection ends before a frame.
    package enum Verdict: Error, Equatable {
        /// More of a kind than its budget.
        case flood(AbuseBudget.Kind)
        /// A breach that nghttp2 lets pass.
        case breach(HTTP2ErrorCode)
    }

    /// CONTINUATION frames of one header block.
    private static let continuationCount = 8
    /// Streams that the client ended, and that are remembered.
    private static let memory = 1024

    private var pending: [UInt8] = []
    private var payloadByteCount = 0
    private var prefaceByteCount: Int
    private var isPayloadOfData = false
    private var continuations: Int?
    private var ended: Set<Int32> = []
    private var endedInOrder = CircularBuffer<Int32>()
    /// Frames of which the header was judged.
    package private(set) var frameCount = 0

    /// - Parameter skipsPreface: whether the client's 24 bytes come first (RFC 9113 §3.4), which
    ///   nghttp2 compares.
    package init(skipsPreface: Bool) {
        prefaceByteCount = skipsPreface ? 24 : 0
    }

    /// The client has begun something that it must finish soon: its preface, a header block, or a
    /// frame other than DATA, of which a large one may take its time.
    package var isInsideFrame: Bool {
        prefaceByteCount > 0 || !pending.isEmpty || continuations != nil
            || (payloadByteCount > 0 && !isPayloadOfData)
    }

    /// Goes through `bytes`.
    ///
    /// - Parameters:
    ///   - isGone: whether nghttp2 has had a stream of this number and has it no more; it skips what
    ///     comes for those without a word.
    ///   - spend: takes one of the connection's budget; false when none is left.
    /// - Returns: how many of the bytes nghttp2 may have, and why not all of them.
    /// - Complexity: O(frames); payloads are skipped.
    package mutating func judge(
        _ bytes: ByteBufferView, isGone: (Int32) -> Bool, spend: (AbuseBudget.Kind) -> Bool
    ) -> (byteCount: Int, verdict: Verdict?) {
        var index = bytes.startIndex
        while index < bytes.endIndex {
            let skipped = min(prefaceByteCount + payloadByteCount, bytes.endIndex - index)
            if skipped > 0 {
                let ofPreface = min(prefaceByteCount, skipped)
                prefaceByteCount -= ofPreface
                payloadByteCount -= skipped - ofPreface
                index += skipped
                continue
            }
            pending.append(bytes[index])
            index += 1
            guard let header = HTTP2FrameHeader(pending) else { continue }
            // A PRIORITY frame's first field says on which stream it depends.
            let isPriority = header.kind == .priority && header.length == 5
            guard !isPriority || pending.count == HTTP2FrameHeader.byteCount + 4 else { continue }
            let beginning = pending.dropFirst(HTTP2FrameHeader.byteCount)
            pending.removeAll(keepingCapacity: true)
            frameCount += 1
            payloadByteCount = header.length - beginning.count
            isPayloadOfData = header.kind == .data
            do throws(Verdict) {
                try judge(header, beginning: beginning, isGone, spend)
            } catch {
                return (index - bytes.startIndex - 1, error)
            }
        }
        return (bytes.count, nil)
    }

    private mutating func judge(
        _ header: HTTP2FrameHeader, beginning: ArraySlice<UInt8>, _ isGone: (Int32) -> Bool,
        _ spend: (AbuseBudget.Kind) -> Bool
    ) throws(Verdict) {
        if let kind = costlyKind(of: header), !spend(kind) { throw .flood(kind) }
        switch header.kind {
        case .data, .headers:
            // A client that has ended a stream sends nothing more on it (RFC 9113 §5.1).
            guard !ended.contains(header.stream) else { throw .breach(.streamClosed) }
            if isGone(header.stream), !spend(.closedStream) { throw .flood(.closedStream) }
            if header.endsStream { noteEnd(of: header.stream) }
            if header.kind == .headers { continuations = header.endsHeaders ? nil : 0 }
        case .continuation:
            guard let count = continuations else { break }  // nghttp2 refuses it
            guard count < Self.continuationCount else { throw .flood(.continuation) }
            continuations = header.endsHeaders ? nil : count + 1
        case .reset: noteEnd(of: header.stream)
        case .priority:
            // RFC 9113 §6.3; and RFC 7540 §5.3.1 for a stream that depends on itself.
            guard header.stream != 0 else { throw .breach(.protocolError) }
            if beginning.count == 4, HTTP2FrameHeader.stream(beginning) == header.stream {
                throw .breach(.protocolError)
            }
        default: break
        }
    }

    /// What the frame's header alone makes of it.
    private func costlyKind(of header: HTTP2FrameHeader) -> AbuseBudget.Kind? {
        switch header.kind {
        case .data: header.length == 0 && !header.endsStream ? .emptyData : nil
        case .headers, .continuation, .pushPromise: nil
        case .reset: .clientReset
        case .ping: header.isAcknowledgement ? .acknowledgement : .ping
        // nghttp2 ends the connection at the second ACK: it sends SETTINGS once.
        case .settings: header.isAcknowledgement ? nil : .settings
        case .goAway: .goAway
        case .windowUpdate: .windowUpdate
        case .priority, .priorityUpdate: .priority
        case nil: .unknownFrame
        }
    }

    private mutating func noteEnd(of stream: Int32) {
        guard ended.insert(stream).inserted else { return }
        endedInOrder.append(stream)
        if endedInOrder.count > Self.memory, let oldest = endedInOrder.popFirst() {
            ended.remove(oldest)
        }
    }
}
