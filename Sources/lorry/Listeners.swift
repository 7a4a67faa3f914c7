import Foundation
import Hummingbird
import Logging
import LorryAPI
import LorryConfiguration
import LorryHTTP
import NIOCore
import ServiceLifecycle
import Synchronization

/// The addresses that the server listens on: one, or a second for administration. They begin and
/// drain together.
struct Listeners: Service {
    private typealias Server = HTTPServer<APIResponder>

    private let servers: [Server]

    /// - Parameters:
    ///   - onDrainTimeout: ends what still runs when the time for that is over.
    ///   - onReady: called once, when all accept connections, before the ready line.
    init(
        settings: ServeConfiguration, services: APIServices, logger: Logger,
        onDrainTimeout: @escaping @Sendable () async -> Void,
        onReady: @escaping @Sendable () -> Void
    ) {
        var http = HTTPServerConfiguration()
        http.host = settings.host
        http.port = settings.port
        if let certificate = settings.tlsCertificate, let key = settings.tlsKey {
            http.tls = TLSFiles(certificateChain: certificate, privateKey: key)
        }
        http.drainTimeout = settings.drainTimeout
        http.onDrainTimeout = onDrainTimeout
        Self.setConnectionLimits(&http.limits, settings, logger)
        let limits = services.limits
        http.bodyLimit = { limits.bodyByteCount(for: $0) }
        let scheme = http.tls == nil ? "http" : "https"

        let hasOwnAdministration = settings.adminPort != nil
        let pending = PendingListeners(count: hasOwnAdministration ? 2 : 1)
        let finish = { @Sendable (url: String?) in
            guard let url = pending.begin(url) else { return }
            onReady()
            Self.announce(url)
        }
        var servers = [
            Server(
                responder: APIRouter.responder(
                    services, for: hasOwnAdministration ? .serving : .sole),
                configuration: http, logger: logger
            ) { address in finish("\(scheme)://\(Self.hostAndPort(address))") }
        ]
        if let port = settings.adminPort {
            http.host = settings.adminHost
            http.port = port
            servers.append(
                Server(
                    responder: APIRouter.responder(services, for: .administration),
                    configuration: http, logger: logger
                ) { address in
                    logger.info(
                        "administration is ready",
                        metadata: ["url": "\(scheme)://\(Self.hostAndPort(address))"])
                    finish(nil)
                })
        }
        self.servers = servers
    }

    /// Serves until graceful shutdown; where one address cannot be used, neither is.
    func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for server in servers { group.addTask { try await server.run() } }
            try await group.waitForAll()
        }
    }

    /// Connections leave file descriptors for everything else: adapters, the database, uploads.
    private static func setConnectionLimits(
        _ limits: inout HTTPLimits, _ settings: ServeConfiguration, _ logger: Logger
    ) {
        limits.connectionCount = settings.maximumConnectionCount ?? limits.connectionCount
        limits.connectionCountPerAddress =
            settings.maximumConnectionCountPerAddress ?? limits.connectionCountPerAddress
        let room = max(16, Machine.raiseOpenFileLimit() - 256)
        guard limits.connectionCount > room else { return }
        logger.warning(
            "fewer connections, since the limit of open files is low",
            metadata: ["connections": "\(room)", "wanted": "\(limits.connectionCount)"])
        limits.connectionCount = room
    }

    private static func hostAndPort(_ address: SocketAddress) -> String {
        let host = address.ipAddress ?? "localhost"
        return (host.contains(":") ? "[\(host)]" : host) + ":\(address.port ?? 0)"
    }

    /// The one line on standard output, for people and for scripts that wait for it.
    private static func announce(_ url: String) {
        FileHandle.standardOutput.write(Data("Lorry is ready on \(url)\n".utf8))
    }
}

/// Counts listeners until the last one has begun.
private final class PendingListeners: Sendable {
    private let state: Mutex<(left: Int, url: String?)>

    init(count: Int) { state = Mutex((count, nil)) }

    /// - Parameter url: of the listener that the ready line names; nil for another.
    /// - Returns: that URL, once all have begun.
    func begin(_ url: String?) -> String? {
        state.withLock { state in
            state.left -= 1
            state.url = url ?? state.url
            return state.left == 0 ? state.url : nil
        }
    }
}
