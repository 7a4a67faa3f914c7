import Synchronization

/// How far the server's start or end has come: what the health routes answer from.
public final class Readiness: Sendable {
    public enum Phase: String, Sendable {
        case starting
        case ready
        case stopping
    }

    private struct State {
        var phase = Phase.starting
        var nextID = 0
        var stopHandlers: [Int: @Sendable () -> Void] = [:]
    }

    private let state = Mutex(State())

    public init() {}

    public var phase: Phase { state.withLock { $0.phase } }

    /// A server that stops does not become ready again.
    public func advance(to phase: Phase) {
        let handlers = state.withLock { state -> [@Sendable () -> Void] in
            guard state.phase != .stopping else { return [] }
            state.phase = phase
            guard phase == .stopping else { return [] }
            defer { state.stopHandlers = [:] }
            return Array(state.stopHandlers.values)
        }
        for handler in handlers { handler() }
    }

    /// The elements of an endless sequence until the server stops, so that a client that follows
    /// it does not hold the stop up; also until it may hear no more, which is asked every second.
    func untilStopping<Element: Sendable>(
        _ source: AsyncStream<Element>, while mayHear: @escaping @Sendable () -> Bool
    ) -> AsyncStream<Element> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: Element.self, bufferingPolicy: .bufferingNewest(1024))
        let id = state.withLock { state -> Int? in
            guard state.phase != .stopping else { return nil }
            state.nextID += 1
            state.stopHandlers[state.nextID] = { continuation.finish() }
            return state.nextID
        }
        let pump = Task {
            for await element in source { continuation.yield(element) }
            continuation.finish()
        }
        continuation.onTermination = { [weak self] _ in
            pump.cancel()
            if let id { self?.removeStopHandler(id) }
        }
        // Started last, so that whatever ends the stream finds the above in place.
        Task {
            while !pump.isCancelled, mayHear() { try await Task.sleep(for: .seconds(1)) }
            pump.cancel()
        }
        if id == nil { continuation.finish() }
        return stream
    }

    private func removeStopHandler(_ id: Int) {
        let removed = state.withLock { $0.stopHandlers.removeValue(forKey: id) }
        _ = removed
    }
}
