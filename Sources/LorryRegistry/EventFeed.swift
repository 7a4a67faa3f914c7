import Synchronization

/// Which audit entries to read.
public struct EventQuery: Sendable {
    /// Only ids above this one.
    public var after: Int64 = 0
    /// Only ids below this one.
    public var before: Int64?
    public var tenant: String?
    /// Only events of adapters with these names; nil: of all, and those that concern none.
    public var names: Set<String>?
    public var limit = 100
    public var newestFirst = false

    public init() {}
}

/// Hands committed events to whoever listens; a slow listener loses the oldest, which it sees by
/// the gap in their ids and can read from the database.
final class EventFeed: Sendable {
    private static let bufferedCount = 1024

    private struct Listeners {
        var nextID = 0
        var continuations: [Int: AsyncStream<RegistryEvent>.Continuation] = [:]
        var isFinished = false
    }
    private let listeners = Mutex(Listeners())

    func stream() -> AsyncStream<RegistryEvent> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: RegistryEvent.self, bufferingPolicy: .bufferingNewest(Self.bufferedCount))
        let id = listeners.withLock { listeners -> Int? in
            guard !listeners.isFinished else { return nil }
            listeners.nextID += 1
            listeners.continuations[listeners.nextID] = continuation
            return listeners.nextID
        }
        guard let id else {
            continuation.finish()
            return stream
        }
        continuation.onTermination = { [weak self] _ in self?.remove(id) }
        return stream
    }

    func publish(_ events: [RegistryEvent]) {
        let continuations = listeners.withLock { Array($0.continuations.values) }
        for continuation in continuations {
            for event in events { continuation.yield(event) }
        }
    }

    func finish() {
        let continuations = listeners.withLock { listeners in
            listeners.isFinished = true
            return Array(listeners.continuations.values)
        }
        for continuation in continuations { continuation.finish() }
    }

    private func remove(_ id: Int) {
        // The removed continuation must not be destroyed while the lock is held.
        let removed = listeners.withLock { $0.continuations.removeValue(forKey: id) }
        _ = removed
    }
}
