import HTTPTypes

/// Where and how an ``HTTPServer`` listens.
public struct HTTPServerConfiguration: Sendable {
    /// Address or name to bind.
    public var host = "127.0.0.1"
    /// TCP port; 0 lets the system choose (see `onReady` of ``HTTPServer``).
    public var port = 8080
    /// With it every connection is TLS, and ALPN chooses the protocol.
    public var tls: TLSFiles?
    public var limits = HTTPLimits()
    /// Bytes of body that a request may bring; asked once per request, before its handler runs.
    /// nil means ``HTTPLimits/bodyByteCount``.
    public var bodyLimit: @Sendable (HTTPRequest) -> Int? = { _ in nil }
    /// How long running requests may go on after shutdown began.
    public var drainTimeout: Duration = .seconds(30)
    /// Called when `drainTimeout` has passed and requests still run: ends them, each with an answer
    /// that says so. Two seconds later connections are closed.
    public var onDrainTimeout: @Sendable () async -> Void = {}
    /// Value of the `server` header field; nil sends none.
    public var serverName: String? = "lorry"

    public init() {}
}

/// PEM files of a server's identity.
public struct TLSFiles: Sendable {
    /// The certificate and its intermediates, leaf first.
    public var certificateChain: String
    /// The leaf's private key, unencrypted.
    public var privateKey: String

    public init(certificateChain: String, privateKey: String) {
        self.certificateChain = certificateChain
        self.privateKey = privateKey
    }
}
