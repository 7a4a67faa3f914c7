import NIOCore
import NIOPosix
import NIOSSL

/// The server that a run loads.
public struct LoadServer: Sendable {
    public enum Version: Int, Sendable, Codable {
        case http1 = 1
        case http2 = 2
    }

    public var host: String
    public var port: Int
    public var version: Version
    /// Put in front of every route, without a slash at its end.
    public var pathPrefix: String
    /// With it connections are TLS.
    public var tls: TLSConfiguration?
    /// Of each tenant; the last one is of all further tenants; none sends no key.
    public var apiKeys: [String]

    public init(
        host: String, port: Int, version: Version, pathPrefix: String = "",
        tls: TLSConfiguration? = nil, apiKeys: [String] = []
    ) {
        self.host = host
        self.port = port
        self.version = version
        self.pathPrefix = pathPrefix
        self.tls = tls
        self.apiKeys = apiKeys
    }

    func apiKey(ofTenant tenant: Int) -> String? {
        apiKeys.indices.contains(tenant) ? apiKeys[tenant] : apiKeys.last
    }

    var authority: String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    /// Nil where the host is an address, which server name indication does not take.
    var serverName: String? {
        host.contains(":") || host.allSatisfy { $0.isNumber || $0 == "." } ? nil : host
    }
}

/// What a connection tells of a request that it carries.
enum ExchangeEvent {
    case head(status: Int)
    case body(ByteBuffer)
    case end
    /// The answer did not end as it should, with why.
    case broken(String)
}

/// Whoever uses connections; all on one event loop.
protocol LoadConnectionOwner: AnyObject {
    func received(_ event: ExchangeEvent, for id: Int)
    /// Places are free on a connection that had none.
    func becameFree(_ connection: any LoadConnection)
    func becameClosed(_ connection: any LoadConnection)
}

/// A connection to the server, on the run's event loop. Requests may be sent before it stands.
protocol LoadConnection: AnyObject {
    var hasFreePlace: Bool { get }
    var isClosed: Bool { get }
    func send(_ id: Int, body: ByteBuffer, apiKey: String?)
    func cancel(_ id: Int)
    func close()
}

extension ClientBootstrap {
    /// Connects a handler, behind TLS where the server has it.
    ///
    /// - Parameter add: puts the handlers into the channel.
    static func load<Handler>(
        _ server: LoadServer, on loop: any EventLoop, tls: NIOSSLContext?, _ handler: Handler,
        _ add: @escaping @Sendable (ChannelPipeline.SynchronousOperations, Handler) throws -> Void
    ) -> EventLoopFuture<any Channel> {
        let bound = NIOLoopBound(handler, eventLoop: loop)
        let serverName = server.serverName
        return ClientBootstrap(group: loop)
            .connectTimeout(.seconds(10))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls {
                        try pipeline.addHandler(
                            NIOSSLClientHandler(context: tls, serverHostname: serverName))
                    }
                    try add(pipeline, bound.value)
                }
            }
            .connect(host: server.host, port: server.port)
    }
}
