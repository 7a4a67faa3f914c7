import NIOCore
import NIOPosix
import RawTraffic
import Synchronization

/// A client that abuses a server on one connection as fast as it is let, and again when it was cut
/// off, on an event loop of its own.
final class Attacker: Sendable {
    private let abuse: Abuse
    private let port: Int
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let cutOff = Atomic(0)
    /// Between being cut off and the next connection. The attack is to cost what the server does, not
    /// what the attacker's own thread takes of the machine's cores.
    private static let pause = Duration.milliseconds(50)
    private static let batchByteCount = 64 * 1024

    init(_ abuse: Abuse, port: Int) {
        self.abuse = abuse
        self.port = port
    }

    /// How often the server has ended its connection.
    var cutOffCount: Int { cutOff.load(ordering: .relaxed) }

    /// Attacks until it is cancelled.
    func run() async {
        while !Task.isCancelled {
            try? await attack()
            try? await Task.sleep(for: Self.pause)
        }
        try? await group.shutdownGracefully()
    }

    private func attack() async throws {
        let ended = EndFlag()
        let channel = try await ClientBootstrap(group: group)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(EndObserver(ended))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        defer { channel.close(promise: nil) }
        try await channel.writeAndFlush(ByteBuffer(bytes: abuse.opening))
        var number = 0
        while !Task.isCancelled, !ended.isSet {
            var bytes = ByteBuffer()
            repeat {
                bytes.writeBytes(abuse.unit(number))
                number += 1
            } while bytes.readableBytes < Self.batchByteCount
            guard (try? await channel.writeAndFlush(bytes)) != nil else { break }
        }
        if !Task.isCancelled { cutOff.add(1, ordering: .relaxed) }
    }
}

private final class EndFlag: Sendable {
    private let value = Atomic(false)
    var isSet: Bool { value.load(ordering: .relaxed) }
    func set() { value.store(true, ordering: .relaxed) }
}

/// Throws away what comes, and notes the end of it.
private final class EndObserver: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let flag: EndFlag

    init(_ flag: EndFlag) { self.flag = flag }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {}
    func channelInactive(context: ChannelHandlerContext) { flag.set() }
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case ChannelEvent.inputClosed = event { flag.set() }
    }
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }
}
