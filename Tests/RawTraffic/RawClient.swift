import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// A TCP client that sends and reads bytes as they are.
public final class RawClient: Sendable {
    private let channel: any Channel
    private let received = NIOLockedValueBox<(bytes: [UInt8], isClosed: Bool)>(([], false))

    private init(_ channel: any Channel) { self.channel = channel }

    /// - Parameter readsAtOnce: false leaves everything in the socket until `startReading`.
    public static func connect(
        port: Int, readsAtOnce: Bool = true,
        prepare: @escaping @Sendable (any Channel) throws -> Void = { _ in }
    ) async throws -> RawClient {
        let client = NIOLockedValueBox<RawClient?>(nil)
        _ = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.autoRead, value: readsAtOnce)
            .channelOption(.socketOption(.so_rcvbuf), value: readsAtOnce ? 1 << 20 : 8192)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let made = RawClient(channel)
                    client.withLockedValue { $0 = made }
                    try prepare(channel)
                    try channel.pipeline.syncOperations.addHandler(Collector(made))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        guard let client = client.withLockedValue({ $0 }) else { throw ConnectError() }
        return client
    }

    private final class Collector: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let client: RawClient
        init(_ client: RawClient) { self.client = client }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let bytes = unwrapInboundIn(data).readableBytesView
            client.received.withLockedValue { $0.bytes += bytes }
        }
        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case ChannelEvent.inputClosed = event { closed() }
            context.fireUserInboundEventTriggered(event)
        }
        func channelInactive(context: ChannelHandlerContext) { closed() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            closed()
            context.close(promise: nil)
        }
        private func closed() { client.received.withLockedValue { $0.isClosed = true } }
    }

    public func send(_ text: String) async throws { try await send(ByteBuffer(string: text)) }
    public func send(_ bytes: ByteBuffer) async throws { try await channel.writeAndFlush(bytes) }
    /// Sends from where nothing can be awaited.
    public func post(_ bytes: [UInt8]) {
        channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil)
    }
    public func closeOutput() async throws { try await channel.close(mode: .output) }
    public func close() async throws { try? await channel.close() }
    public func startReading() async throws {
        try await channel.setOption(.autoRead, value: true).get()
    }

    public var isClosed: Bool { received.withLockedValue { $0.isClosed } }
    public var text: String {
        String(decoding: received.withLockedValue { $0.bytes }, as: UTF8.self)
    }

    public var bytes: [UInt8] { received.withLockedValue { $0.bytes } }

    /// Takes what has been received.
    public func take() -> ByteBuffer {
        received.withLockedValue { state in
            defer { state.bytes = [] }
            return ByteBuffer(bytes: state.bytes)
        }
    }

    /// What was received once it holds `text`, or once the server closed.
    public func read(until text: String) async throws -> String {
        while !self.text.contains(text), !isClosed {
            try await Task.sleep(for: .milliseconds(1))
        }
        return self.text
    }

    public func readToEnd() async throws -> String {
        while !isClosed { try await Task.sleep(for: .milliseconds(1)) }
        return text
    }

    /// One exchange on a connection of its own, until the server closes.
    public static func ask(_ port: Int, _ request: String) async throws -> String {
        let client = try await connect(port: port)
        try await client.send(request)
        let answer = try await client.readToEnd()
        try await client.close()
        return answer
    }
}

/// No channel came of a connection.
struct ConnectError: Error {}
