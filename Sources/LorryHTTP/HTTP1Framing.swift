import HTTPTypes
import NIOCore

/// Counts what a request brings beside its content: chunk sizes, extensions (CVE-2023-39326), line
/// ends, and empty lines in front of it. The parser skips all of that without an end.
struct HTTP1Framing {
    private var arrivedByteCount = 0
    private var contentByteCount = 0

    mutating func arrived(_ byteCount: Int) { arrivedByteCount += byteCount }
    mutating func content(_ byteCount: Int) { contentByteCount += byteCount }

    /// To be asked before the next bytes: those that have arrived are parsed then, so that a read
    /// of any size counts as what it was. A chunk of one byte takes six.
    func isWithin(_ limits: HTTPLimits) -> Bool {
        arrivedByteCount - contentByteCount <= limits.framingByteCount + 8 * contentByteCount
    }
}

/// Stands before the parser: tells the handler behind it of bytes, and judges request lines, of
/// which the parser accepts more than RFC 9112 §3 has.
///
/// Only lines that begin a read are judged, where the read before ended with an empty line: then the
/// parser holds nothing of a request that the client has sent ahead.
final class HTTP1LineGate: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let handler: HTTP1Handler
    private let limit: Int
    /// The beginning of a request, held until its line is whole.
    private var held: ByteBuffer?
    /// Whether the parser, once it has given out a whole request, holds no bytes of the next one.
    private var isParserEmpty = true

    init(_ handler: HTTP1Handler) {
        self.handler = handler
        // A method and a version are short.
        limit = handler.settings.limits.uriByteCount + 64
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if handler.isBetweenRequests, isParserEmpty { held = ByteBuffer() }
        isParserEmpty = bytes.readableBytesView.suffix(4).elementsEqual("\r\n\r\n".utf8)
        guard handler.noteBytes(bytes.readableBytes) else {
            held = nil
            return
        }
        guard var line = held else { return context.fireChannelRead(data) }
        line.writeBuffer(&bytes)
        switch HTTP1RequestLine.judge(line.readableBytesView, limit: limit) {
        case .incomplete: held = line
        case .sound:
            held = nil
            context.fireChannelRead(wrapInboundOut(line))
        case .foreign:
            held = nil
            handler.refuseProtocol()
        case .violation(let violation):
            held = nil
            handler.take(violation)
        }
    }
}

/// The first line of a request (RFC 9112 §3): `method SP request-target SP HTTP-version CRLF`.
package enum HTTP1RequestLine {
    package enum Judgement: Equatable {
        case incomplete, sound
        /// Not HTTP, whatever it is: a spoilt HTTP/2 preface (RFC 9113 §3.4), say.
        case foreign
        case violation(HTTP1Rules.Violation)
    }

    package static func judge(_ bytes: some BidirectionalCollection<UInt8>, limit: Int) -> Judgement
    {
        // Empty lines before it may be skipped (RFC 9112 §2.2): two, of a client that ends its
        // bodies with them.
        let beginning = bytes.prefix(5).prefix { $0 == 13 || $0 == 10 }
        guard beginning.count <= 4 else { return .violation(.init("Empty lines without end")) }
        let rest = bytes.dropFirst(beginning.count)
        guard let end = rest.firstIndex(of: 10) else {
            return rest.count > limit ? tooLong : .incomplete
        }
        var line = rest[..<end]
        guard line.count <= limit else { return tooLong }
        guard line.last == 13 else { return malformed }
        line = line.dropLast()
        let words = line.split(separator: 32, omittingEmptySubsequences: false)
        guard words.count == 3 else { return malformed }
        guard words[2].starts(with: "HTTP/".utf8) else { return .foreign }
        return words.allSatisfy { !$0.isEmpty } ? .sound : malformed
    }

    private static var malformed: Judgement {
        .violation(HTTP1Rules.Violation("The request line is malformed"))
    }

    private static var tooLong: Judgement {
        .violation(
            HTTP1Rules.Violation(
                "The request target is too long", status: .uriTooLong, reason: .uriTooLong))
    }
}
