import Synchronization

/// One running generation, as its reader sees it: a sequence of events, read once.
///
/// The buffer is bounded: while it is full the engine leaves the sequence out of its steps, so that
/// a slow reader slows only itself. Dropping the generation cancels it.
public final class Generation: AsyncSequence, Sendable {
    public typealias Element = GenerationEvent

    package let channel: EventChannel

    package init(channel: EventChannel) { self.channel = channel }

    deinit { channel.abandon() }

    /// Ends the generation within one step. Its last event is `finished` with reason `cancelled`,
    /// unless it had ended already.
    public func cancel() { channel.abandon() }

    /// Ends the generation within one step, as complete: its last event is `finished` with reason
    /// `readerSatisfied`, unless it had ended already.
    public func stop() { channel.satisfy() }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(generation: self) }

    public struct AsyncIterator: AsyncIteratorProtocol {
        let generation: Generation

        /// Returns nil after the last event, and when the task is cancelled, which also cancels the
        /// generation.
        public mutating func next() async -> GenerationEvent? {
            let channel = generation.channel
            return await withTaskCancellationHandler {
                await channel.next()
            } onCancel: {
                channel.abandon()
            }
        }
    }
}

/// The bounded buffer between the engine thread and one reader. `state` is guarded by its mutex.
package final class EventChannel: Sendable {
    private struct State {
        var events: [GenerationEvent] = []
        var reader: CheckedContinuation<GenerationEvent?, Never>?
        var hasEnded = false
        var isAbandoned = false
        /// The engine found the buffer full and waits to hear of room.
        var isPaused = false
    }

    private let state = Mutex(State())
    private let capacity: Int
    /// Tells the engine that the reader has made room, or has gone.
    private let signal: @Sendable (Signal) -> Void

    package enum Signal: Sendable { case resumed, abandoned, satisfied }

    package init(capacity: Int, signal: @escaping @Sendable (Signal) -> Void) {
        self.capacity = capacity
        self.signal = signal
    }

    // MARK: Engine's side

    /// Never blocks; may exceed the capacity by the events of one step.
    package func send(_ event: GenerationEvent) {
        let reader = state.withLock { state -> CheckedContinuation<GenerationEvent?, Never>? in
            precondition(!state.hasEnded, "an event after the last one")
            if case .finished = event { state.hasEnded = true }
            if case .failed = event { state.hasEnded = true }
            if let reader = state.reader {
                state.reader = nil
                return reader
            }
            state.events.append(event)
            return nil
        }
        reader?.resume(returning: event)
    }

    /// Whether the sequence should pause. If so, `resumed` is signalled once there is room.
    package func pauseIfFull() -> Bool {
        state.withLock { state in
            state.isPaused = state.events.count >= capacity && !state.isAbandoned
            return state.isPaused
        }
    }

    // MARK: Reader's side

    package func next() async -> GenerationEvent? {
        await withCheckedContinuation { continuation in
            var resumed = false
            let ready: GenerationEvent?? = state.withLock { state in
                if !state.events.isEmpty {
                    let event = state.events.removeFirst()
                    if state.isPaused && state.events.count <= capacity / 2 {
                        state.isPaused = false
                        resumed = true
                    }
                    return .some(event)
                }
                if state.hasEnded || state.reader != nil { return .some(nil) }
                state.reader = continuation
                return nil
            }
            if resumed { signal(.resumed) }
            if let ready { continuation.resume(returning: ready) }
        }
    }

    /// The reader needs no more, and still waits for the end.
    package func satisfy() {
        let isRunning = state.withLock { !$0.isAbandoned && !$0.hasEnded }
        if isRunning { signal(.satisfied) }
    }

    package func abandon() {
        let isFirst = state.withLock { state in
            let isFirst = !state.isAbandoned && !state.hasEnded
            state.isAbandoned = true
            return isFirst
        }
        if isFirst { signal(.abandoned) }
    }
}
