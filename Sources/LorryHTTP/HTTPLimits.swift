/// Bounds on what one client, and all of them together, can make the server hold or wait for.
///
/// Every bound that is hit is counted in `lorry_http_refusals_total{reason}`.
public struct HTTPLimits: Sendable {
    /// Names and values of one request's header fields together, in bytes. Over it: 431.
    public var headerByteCount = 32 * 1024
    /// Header fields of one request. Over it: 431.
    public var headerFieldCount = 100
    /// The request target, in bytes. Over it: 414.
    public var uriByteCount = 8 * 1024
    /// Request body of a route for which `HTTPServerConfiguration.bodyLimit` says nothing, in bytes.
    /// Over it: 413, at once when `content-length` tells, else when the bytes arrive.
    public var bodyByteCount = 8 * 1024 * 1024
    /// Streams that one HTTP/2 connection may have open. Over it: REFUSED_STREAM.
    public var concurrentStreamCount = 128
    /// Requests that an HTTP/1.1 client may send ahead of the answer it waits for. Over it: 400.
    public var pipelinedRequestCount = 128
    /// Open connections of all clients. Over it: 503 and close.
    public var connectionCount = 4096
    /// Open connections of one client address (IPv6: of one /64). Over it: 503 and close.
    public var connectionCountPerAddress = 1024
    /// From accept to the first whole request head, TLS handshake included; also from the first
    /// byte of a later HTTP/1.1 head to its end. Over it: 408 (once bytes came) and close. Also for
    /// an HTTP/2 frame other than DATA. Over it: GOAWAY.
    public var headerTimeout: Duration = .seconds(15)
    /// A connection without a running request is closed after this.
    public var idleTimeout: Duration = .seconds(75)
    /// A request body of which no byte arrives for this long, while the handler wants it: 408.
    public var bodyIdleTimeout: Duration = .seconds(20)
    /// Bytes per second that a request body must bring on average after its first
    /// `bodyIdleTimeout`, not counting the time in which the server did not read. Under it: 408.
    public var bodyByteRate = 512
    /// A body that takes longer than this must bring `longBodyByteRate` bytes per second of the time
    /// beyond, likewise: so one of `n` bytes is over, or refused with 408, after
    /// `longBodyTimeout + n / longBodyByteRate` of waiting.
    public var longBodyTimeout: Duration = .seconds(600)
    public var longBodyByteRate = 64 * 1024
    /// A response of which bytes wait, and of which the client takes fewer than
    /// `responseStallByteCount` for this long, is given up.
    public var responseStallTimeout: Duration = .seconds(60)
    /// In bytes; all that waits, where that is less.
    public var responseStallByteCount = 4096
    /// Response bytes that one stream holds before its producer is suspended.
    public var responseBufferByteCount = 64 * 1024
    /// Bytes of HTTP/1.1 framing (chunk sizes, extensions and their line ends, and empty lines before
    /// a request) that do not count as too many, beside 8 for each byte of content. Over it: 400.
    public var framingByteCount = 64 * 1024
    /// What floods of frames one HTTP/2 connection may send.
    public var abuse = AbuseBudget.Allowances()

    public init() {}
}
