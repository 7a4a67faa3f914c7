import HTTPTypes
import Logging
import NIOCore
import NIOHTTP1
import NIOTLS

/// Puts the handlers of a protocol into a channel's pipeline.
enum HTTPPipeline {
    static func addHTTP1(
        _ context: ChannelHandlerContext, settings: ConnectionSettings, peer: ConnectionPeer
    ) throws {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = settings.limits.headerByteCount
        limits.maxHeaderListSize = settings.limits.headerByteCount
        limits.maxHeaderFieldCount = settings.limits.headerFieldCount
        let handler = HTTP1Handler(settings: settings, peer: peer, eventLoop: context.eventLoop)
        let decoder = HTTPRequestDecoder(
            leftOverBytesStrategy: .forwardBytes, limitConfiguration: limits)
        let pipeline = context.pipeline.syncOperations
        try pipeline.addHandler(HTTP1LineGate(handler))
        try pipeline.addHandler(HTTPResponseEncoder())
        try pipeline.addHandler(ByteToMessageHandler(decoder))
        try pipeline.addHandler(handler)
    }

    static func addHTTP2(
        _ context: ChannelHandlerContext, settings: ConnectionSettings, peer: ConnectionPeer,
        upgrade: HTTP2Handler.Upgrade? = nil
    ) throws {
        let peer = ConnectionPeer(address: peer.address, version: .http2, isSecure: peer.isSecure)
        try context.pipeline.syncOperations.addHandler(
            HTTP2Handler(
                settings: settings, peer: peer, eventLoop: context.eventLoop, upgrade: upgrade))
    }

    /// Replaces the handlers of HTTP/1.1; bytes that the parser holds go to HTTP/2.
    static func switchToHTTP2(
        _ context: ChannelHandlerContext, handler: HTTP1Handler, upgrade: HTTP2Handler.Upgrade
    ) {
        let pipeline = context.pipeline.syncOperations
        do {
            let old = try [
                pipeline.context(handlerType: HTTP1LineGate.self),
                pipeline.context(handlerType: HTTPResponseEncoder.self), context,
            ]
            let parser = try pipeline.context(
                handlerType: ByteToMessageHandler<HTTPRequestDecoder>.self)
            // What HTTP/2 writes must not meet the encoder; what the parser lets go must meet HTTP/2.
            for context in old { pipeline.removeHandler(context: context, promise: nil) }
            try addHTTP2(context, settings: handler.settings, peer: handler.peer, upgrade: upgrade)
            pipeline.removeHandler(context: parser, promise: nil)
        } catch {
            handler.settings.logger.debug("h2c upgrade failed", metadata: ["error": "\(error)"])
            context.close(promise: nil)
        }
    }
}

/// Decides from ALPN, or from a connection's first bytes, which protocol it speaks.
final class ProtocolChooser: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let settings: ConnectionSettings
    private let isSecure: Bool
    private var received = ByteBuffer()
    private var isChosen = false
    private var timeout: Scheduled<Void>?

    init(settings: ConnectionSettings, isSecure: Bool) {
        self.settings = settings
        self.isSecure = isSecure
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        timeout = context.eventLoop.scheduleTask(
            in: TimeAmount(settings.limits.headerTimeout)
        ) {
            let (chooser, context) = bound.value
            chooser.settings.metrics.refused(.headerTimeout)
            context.close(promise: nil)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        timeout?.cancel()
    }

    func channelInactive(context: ChannelHandlerContext) {
        timeout?.cancel()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received.writeImmutableBuffer(unwrapInboundIn(data))
        guard !isChosen, let version = Self.version(of: received) else { return }
        choose(version, context)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case TLSUserEvent.handshakeCompleted(let negotiated):
            if negotiated == "h2" { choose(.http2, context) }
            if negotiated == "http/1.1" { choose(.http1, context) }
        case is DrainEvent, ChannelEvent.inputClosed: context.close(promise: nil)
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        settings.logger.debug("connection ended", metadata: ["error": "\(error)"])
        context.close(promise: nil)
    }

    /// The protocol that bytes begin with; nil while both are possible. No method begins with
    /// `PRI `, which RFC 9113 §3.4 reserves for that purpose.
    static func version(of bytes: ByteBuffer) -> HTTPProtocolVersion? {
        let beginning = bytes.readableBytesView.prefix(4)
        guard "PRI ".utf8.starts(with: beginning) else { return .http1 }
        return beginning.count == 4 ? .http2 : nil
    }

    private func choose(_ version: HTTPProtocolVersion, _ context: ChannelHandlerContext) {
        guard !isChosen else { return }
        isChosen = true
        let peer = ConnectionPeer(
            address: context.channel.remoteAddress, version: version, isSecure: isSecure)
        do {
            switch version {
            case .http1: try HTTPPipeline.addHTTP1(context, settings: settings, peer: peer)
            case .http2: try HTTPPipeline.addHTTP2(context, settings: settings, peer: peer)
            }
        } catch {
            return context.close(promise: nil)
        }
        if received.readableBytes > 0 {
            context.fireChannelRead(wrapInboundOut(received))
            context.fireChannelReadComplete()
        }
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }
}
