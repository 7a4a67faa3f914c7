import Metrics

/// Why a request or a connection was turned away.
package enum Refusal: String, Sendable, CaseIterable {
    case connections
    /// One client address has too many connections.
    case connectionsPerAddress = "connections_per_address"
    case badRequest = "bad_request"
    case headersTooLarge = "headers_too_large"
    case uriTooLong = "uri_too_long"
    case bodyTooLarge = "body_too_large"
    case streams, pipeline
    case contentEncoding = "content_encoding"
    case draining
    case headerTimeout = "header_timeout"
    case bodyTimeout = "body_timeout"
    case responseStalled = "response_stalled"
    case idle
    case protocolError = "protocol_error"
    case flood
    case floodClientReset = "flood_client_reset"
    case floodServerReset = "flood_server_reset"
    case floodPing = "flood_ping"
    case floodSettings = "flood_settings"
    case floodAcknowledgement = "flood_acknowledgement"
    case floodEmptyData = "flood_empty_data"
    case floodPriority = "flood_priority"
    case floodUnknownFrame = "flood_unknown_frame"
    case floodWindowUpdate = "flood_window_update"
    case floodTinyWindow = "flood_tiny_window"
    case floodGoAway = "flood_goaway"
    case floodContinuation = "flood_continuation"
    case floodOversizedHead = "flood_oversized_head"
    case floodClosedStream = "flood_closed_stream"
    /// HTTP/1.1: more bytes of framing (chunk sizes and extensions, empty lines) than of content.
    case floodFraming = "flood_framing"

    package init(_ kind: AbuseBudget.Kind) {
        self = Refusal(rawValue: "flood_" + kind.rawValue) ?? .flood
    }
}

/// Why an HTTP/2 stream ended before its response did.
package enum StreamReset: String, Sendable, CaseIterable {
    /// The client sent RST_STREAM.
    case client
    /// The connection ended.
    case disconnect
    /// The handler failed after its response had begun.
    case handler
    case refused, stalled
    /// nghttp2 found the client in breach of the protocol.
    case protocolError = "protocol_error"
}

/// The HTTP server's own figures, made once at start from the metrics factory in force.
package struct HTTPMetrics: Sendable {
    private let connections: [HTTPProtocolVersion: Meter]
    private let streams: Meter
    private let resets: [StreamReset: Counter]
    private let refusals: [Refusal: Counter]

    package init(factory: any MetricsFactory = MetricsSystem.factory) {
        func byLabel<Key: Hashable & RawRepresentable<String>, Metric>(
            _ keys: [Key], _ make: (String) -> Metric
        ) -> [Key: Metric] {
            Dictionary(uniqueKeysWithValues: keys.map { ($0, make($0.rawValue)) })
        }
        connections = byLabel(HTTPProtocolVersion.allCases) {
            let name = $0 == HTTPProtocolVersion.http2.rawValue ? "h2" : "http/1.1"
            return Meter(
                label: "lorry_http_connections", dimensions: [("protocol", name)], factory: factory)
        }
        streams = Meter(label: "lorry_http_streams", dimensions: [], factory: factory)
        resets = byLabel(StreamReset.allCases) {
            Counter(
                label: "lorry_http_resets_total", dimensions: [("reason", $0)], factory: factory)
        }
        refusals = byLabel(Refusal.allCases) {
            Counter(
                label: "lorry_http_refusals_total", dimensions: [("reason", $0)], factory: factory)
        }
        for meter in connections.values { meter.set(0) }
        streams.set(0)
    }

    package func connectionOpened(_ version: HTTPProtocolVersion) {
        connections[version]?.increment()
    }
    package func connectionClosed(_ version: HTTPProtocolVersion) {
        connections[version]?.decrement()
    }
    /// A request began, over either protocol.
    package func streamOpened() { streams.increment() }
    package func streamClosed() { streams.decrement() }
    package func reset(_ reason: StreamReset) { resets[reason]?.increment() }
    package func refused(_ reason: Refusal) { refusals[reason]?.increment() }
}
