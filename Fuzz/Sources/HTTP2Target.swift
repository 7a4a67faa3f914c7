import HTTPTypes
import LorryHTTP
import NIOCore

/// What a client sends behind the connection preface, in pieces whose sizes its first byte sets.
/// Requests are answered, some with a body.
struct HTTP2Target: FuzzTarget {
    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    func run(_ input: [UInt8]) throws {
        guard let size = input.first.map({ Int($0) + 1 }) else { return }
        var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
        let session = try HTTP2Session(role: .server, options: HTTP2Options(), now: now)
        try session.receive(ByteBuffer(bytes: Self.preface), now: now)
        let bytes = input.dropFirst()
        for start in stride(from: bytes.startIndex, to: bytes.endIndex, by: size) {
            now = now + .milliseconds(1)
            let piece = bytes[start..<min(start + size, bytes.endIndex)]
            try session.receive(ByteBuffer(bytes: piece), now: now)
            try answer(session)
            guard session.isAlive else { return }
        }
    }

    private func answer(_ session: HTTP2Session) throws {
        for event in session.takeEvents() {
            switch event {
            case .head(let stream, let head, _):
                let isKnown = head.request != nil
                let hasBody = isKnown && !stream.isMultiple(of: 4)
                try session.submitResponse(
                    HTTPResponse(status: isKnown ? .ok : .badRequest), stream: stream,
                    endOfStream: !hasBody)
                if hasBody {
                    session.appendBody(ByteBuffer(repeating: 0x78, count: 1000), stream: stream)
                    session.finishBody(stream: stream)
                }
            case .oversizedHead(let stream, _):
                try session.submitResponse(
                    HTTPResponse(status: .badRequest), stream: stream, endOfStream: true)
            case .body(let stream, let bytes):
                session.consume(bytes.readableBytes, stream: stream)
            default: break
            }
        }
        var output = ByteBuffer()
        try session.takeOutput(into: &output, limit: 1 << 16)
    }
}
