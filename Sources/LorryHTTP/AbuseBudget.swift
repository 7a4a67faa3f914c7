import NIOCore

/// Tokens that refill with time up to a capacity; each costly act of a peer takes one.
package struct TokenBucket: Sendable {
    private let allowance: AbuseBudget.Allowance
    private var tokens: Double
    private var updated: NIODeadline

    package init(_ allowance: AbuseBudget.Allowance, at now: NIODeadline) {
        self.allowance = allowance
        tokens = Double(allowance.burst)
        updated = now
    }

    /// Takes one token, or says false when none is left.
    package mutating func take(at now: NIODeadline) -> Bool {
        let seconds = Double((now - updated).nanoseconds) / 1e9
        if seconds > 0 {
            updated = now
            add(seconds * allowance.perSecond)
        }
        guard tokens >= 1 else { return false }
        tokens -= 1
        return true
    }

    /// Work that the peer did for its own good pays for the frames that come with it.
    package mutating func add(_ count: Double) {
        tokens = min(Double(allowance.burst), tokens + count)
    }
}

/// What one HTTP/2 connection may still do that costs the server more than the client.
///
/// nghttp2 bounds a part of it; the rest is the application's job: resets that the server is made to
/// send (CVE-2025-8671) or gets (CVE-2023-44487), CONTINUATION (CVE-2024-27316), floods of PING,
/// SETTINGS, empty DATA, PRIORITY and WINDOW_UPDATE frames (CVE-2019-9512, -9515, -9518, -9513,
/// -9511), and frames that it ignores without counting them.
public struct AbuseBudget: Sendable {
    /// What a peer can send too much of.
    public enum Kind: String, Sendable, CaseIterable {
        /// RST_STREAM of the client.
        case clientReset = "client_reset"
        /// RST_STREAM that the server has to send because of what the client did, refused streams
        /// included.
        case serverReset = "server_reset"
        case ping, settings
        /// PING with ACK; who answers ours has no need of more.
        case acknowledgement
        /// DATA without content that does not end its stream, padding or not.
        case emptyData = "empty_data"
        /// PRIORITY and PRIORITY_UPDATE.
        case priority
        case unknownFrame = "unknown_frame"
        case windowUpdate = "window_update"
        /// Windows so small that a DATA frame carries next to nothing.
        case tinyWindow = "tiny_window"
        case goAway = "goaway"
        /// CONTINUATION beyond what one header block may have.
        case continuation
        /// Heads over their bounds, compressed or not.
        case oversizedHead = "oversized_head"
        /// DATA and HEADERS of streams that the server has closed.
        case closedStream = "closed_stream"
    }

    public struct Allowance: Sendable {
        public var burst: Int
        public var perSecond: Double
        public init(burst: Int, perSecond: Double) {
            self.burst = burst
            self.perSecond = perSecond
        }
    }

    /// Defaults are far above what browsers, curl and HTTP libraries send.
    public struct Allowances: Sendable {
        private var values: [Kind: Allowance] = [
            .clientReset: Allowance(burst: 500, perSecond: 50),
            .serverReset: Allowance(burst: 100, perSecond: 10),
            .ping: Allowance(burst: 200, perSecond: 10),
            .settings: Allowance(burst: 32, perSecond: 1),
            .acknowledgement: Allowance(burst: 200, perSecond: 10),
            .emptyData: Allowance(burst: 100, perSecond: 10),
            .priority: Allowance(burst: 500, perSecond: 50),
            .unknownFrame: Allowance(burst: 500, perSecond: 50),
            .windowUpdate: Allowance(burst: 4000, perSecond: 1000),
            .tinyWindow: Allowance(burst: 500, perSecond: 10),
            .goAway: Allowance(burst: 8, perSecond: 1),
            .continuation: Allowance(burst: 0, perSecond: 0),
            .oversizedHead: Allowance(burst: 20, perSecond: 1),
            // What may be under way when the server closes a stream: a whole window of small frames.
            .closedStream: Allowance(burst: 2000, perSecond: 200),
        ]
        public init() {}

        public subscript(kind: Kind) -> Allowance {
            get { values[kind] ?? Allowance(burst: 0, perSecond: 0) }
            set { values[kind] = newValue }
        }
    }

    private var buckets: [Kind: TokenBucket]

    package init(_ allowances: Allowances, at now: NIODeadline) {
        buckets = Dictionary(
            uniqueKeysWithValues: Kind.allCases.map { ($0, TokenBucket(allowances[$0], at: now)) })
    }

    /// Whether the peer may do this once more.
    package mutating func spend(_ kind: Kind, at now: NIODeadline) -> Bool {
        buckets[kind]?.take(at: now) ?? true
    }

    /// A DATA frame went out: window updates and some PINGs will answer it.
    package mutating func creditSentData() {
        buckets[.windowUpdate]?.add(4)
        buckets[.ping]?.add(1)
    }

    /// A request came: its client may say how urgent it is, and grease (RFC 8701) goes with it.
    package mutating func creditRequest() {
        buckets[.priority]?.add(2)
        buckets[.unknownFrame]?.add(2)
    }
}
