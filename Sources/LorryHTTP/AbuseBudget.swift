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
/// nghttp2 bounds client resets and CONTINUATION frames; the rest is the application's job:
/// resets that the server is made to send (CVE-2025-8671), and floods of PING, SETTINGS, empty
/// DATA, PRIORITY and WINDOW_UPDATE frames (CVE-2019-9512, -9515, -9518, -9513, -9511).
public struct AbuseBudget: Sendable {
    /// What a peer can send too much of.
    public enum Kind: String, Sendable, CaseIterable {
        case clientReset = "client_reset"
        case serverReset = "server_reset"
        case ping
        case settings
        case emptyData = "empty_data"
        case priority
        case windowUpdate = "window_update"
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
        public var clientReset = Allowance(burst: 500, perSecond: 50)
        public var serverReset = Allowance(burst: 100, perSecond: 10)
        public var ping = Allowance(burst: 200, perSecond: 10)
        public var settings = Allowance(burst: 32, perSecond: 1)
        public var emptyData = Allowance(burst: 100, perSecond: 10)
        public var priority = Allowance(burst: 500, perSecond: 50)
        public var windowUpdate = Allowance(burst: 4000, perSecond: 1000)
        public init() {}

        subscript(kind: Kind) -> Allowance {
            switch kind {
            case .clientReset: clientReset
            case .serverReset: serverReset
            case .ping: ping
            case .settings: settings
            case .emptyData: emptyData
            case .priority: priority
            case .windowUpdate: windowUpdate
            }
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
}
