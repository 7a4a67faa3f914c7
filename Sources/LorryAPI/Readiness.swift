import Synchronization

/// How far the server's start or end has come: what the health routes answer from.
public final class Readiness: Sendable {
    public enum Phase: String, Sendable {
        case starting
        case ready
        case stopping
    }

    private let state = Mutex(Phase.starting)

    public init() {}

    public var phase: Phase { state.withLock { $0 } }

    /// A server that stops does not become ready again.
    public func advance(to phase: Phase) {
        state.withLock { if $0 != .stopping { $0 = phase } }
    }
}
