import LorryHTTP
import NIOCore
import NIOEmbedded
import NIOHTTP1

/// What a client sends on an HTTP/1.1 connection: NIO's parser, and the rules on the heads that it
/// lets through. The first byte sets the pieces' size.
struct HTTP1Target: FuzzTarget {
    func run(_ input: [UInt8]) throws {
        guard let size = input.first.map({ Int($0) + 1 }) else { return }
        let decoder = HTTPRequestDecoder(leftOverBytesStrategy: .forwardBytes)
        let channel = EmbeddedChannel(handler: ByteToMessageHandler(decoder))
        defer { _ = try? channel.finish(acceptAlreadyClosed: true) }
        let bytes = input.dropFirst()
        for start in stride(from: bytes.startIndex, to: bytes.endIndex, by: size) {
            let piece = bytes[start..<min(start + size, bytes.endIndex)]
            try channel.writeInbound(ByteBuffer(bytes: piece))
            while let part = try channel.readInbound(as: HTTPServerRequestPart.self) {
                if case .head(let head) = part { try judge(head) }
            }
        }
    }

    private func judge(_ head: HTTPRequestHead) throws {
        let judged = try HTTP1Rules.judge(head, isSecure: false, limits: HTTPLimits())
        let lengths = head.headers["content-length"]
        let codings = head.headers["transfer-encoding"]
        precondition(lengths.count + codings.count <= 1, "a body of more than one length")
        precondition(judged.contentLength ?? 0 >= 0, "a body of less than nothing")
    }
}
