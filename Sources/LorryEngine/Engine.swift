import Foundation
import LorryModel
import LorryTensor
import Synchronization

/// Serves generations: one thread that plans, runs and commits steps over one base model.
///
/// `reserve`, then `submit`, then read the `Generation`. Everything that a step touches belongs to
/// the engine's thread; a mailbox is the only way in, a bounded channel per generation the only way
/// out.
public final class Engine: Sendable {
    public let model: DecoderModel
    public let configuration: EngineConfiguration
    private let mailbox = Mailbox()
    private let queue: WaitingQueue
    private let nextID = Atomic<UInt64>(1)
    private let shared = Shared()
    private let roster: AdapterRoster

    /// What the engine thread publishes. Each field is guarded by its own mutex.
    private final class Shared: Sendable {
        let statistics = Mutex(EngineStatistics())
        let heartbeat = Mutex(Heartbeat())
        let stopped = Mutex<(isStopped: Bool, waiters: [CheckedContinuation<Void, Never>])>(
            (false, []))
    }

    private struct Heartbeat {
        var isBusy = false
        var stepStart = ContinuousClock.now
    }

    /// Starts the engine's thread.
    ///
    /// - Parameter workers: used by the engine's thread alone from now on.
    /// - Throws: `EngineStartError` where the memory budget does not hold a single KV block, or a
    ///   bound is below 1.
    public init(
        model: DecoderModel, configuration: EngineConfiguration, workers: WorkerPool,
        observer: any EngineObserver
    ) throws(EngineStartError) {
        self.model = model
        var configuration = configuration
        configuration.maximumContextLength = min(
            configuration.maximumContextLength, model.contextLength)
        self.configuration = configuration
        guard configuration.maximumBatchTokenCount > 0, configuration.maximumRunningCount > 0,
            configuration.maximumContextLength > 0, configuration.eventBufferCount > 0
        else { throw EngineStartError(description: "the scheduler's bounds must be above 0") }
        let queue = WaitingQueue(
            bounds: .init(
                count: configuration.maximumWaitingCount,
                tokenCount: configuration.maximumWaitingTokenCount,
                isShared: configuration.hasSeveralTenants))
        self.queue = queue
        let mailbox = mailbox
        let loader = AdapterLoader { mailbox.send(.loaded($0, $1)) }
        let core: EngineCore
        do {
            core = try EngineCore(
                model: model, configuration: configuration, workers: workers, queue: queue,
                loader: loader, observer: observer)
        } catch {
            throw EngineStartError(description: error.description)
        }
        roster = core.roster
        shared.statistics.withLock { $0 = core.statistics }
        let handoff = CoreHandoff(core: core)
        let thread = Thread { [shared] in
            nameThread("lorry-engine")
            Self.loop(handoff.core, mailbox, shared)
            loader.stop()
        }
        thread.stackSize = 8 << 20
        thread.start()
    }

    deinit { mailbox.send(.stop) }

    /// Carries the core to its thread. Safe because nothing else keeps a reference.
    private struct CoreHandoff: @unchecked Sendable {
        let core: EngineCore
    }

    private static func loop(_ core: EngineCore, _ mailbox: Mailbox, _ shared: Shared) {
        var hasWork = false
        var published = ContinuousClock.now
        while true {
            for message in mailbox.takeAll(waiting: !hasWork, until: core.nextDeadline) {
                core.handle(message)
            }
            if core.canStop { break }
            shared.heartbeat.withLock { $0 = Heartbeat(isBusy: true) }
            hasWork = core.step()
            shared.heartbeat.withLock { $0.isBusy = false }
            // Often enough for scrapes, and always before the thread goes to sleep.
            if !hasWork || .now - published > .milliseconds(10) {
                published = .now
                shared.statistics.withLock { $0 = core.statistics }
            }
        }
        core.reportMemory()
        for message in mailbox.close() {
            switch message {
            // What was submitted too late ends here: nobody else would tell its reader.
            case .submit(let late): late.channel.send(.failed(.shuttingDown))
            case .check(let answer): answer(nil)
            default: break
            }
        }
        shared.statistics.withLock { $0 = core.statistics }
        let waiters = shared.stopped.withLock { stopped in
            stopped.isStopped = true
            defer { stopped.waiters = [] }
            return stopped.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    // MARK: - Requests

    /// Takes places in the bounded queue, before any work is done for a request.
    ///
    /// - Parameters:
    ///   - count: sequences that will be submitted.
    ///   - tokenCount: an estimate of the tokens of their prompts together, to be corrected once
    ///     they are known.
    ///   - tenant: on whose account they run.
    /// - Throws: `EngineError.queueFull` or `.shuttingDown`.
    public func reserve(
        count: Int = 1, tokenCount: Int = 0, tenant: String = "default"
    ) throws(EngineError) -> QueueReservation {
        try queue.take(count, tokenCount: tokenCount, tenant: tenant)
        return QueueReservation(
            queue: queue, count: count, tokenCount: tokenCount, tenant: tenant)
    }

    /// - Throws: `EngineError` where the request can never run.
    public func submit(
        _ request: GenerationRequest, reservation: QueueReservation
    ) throws(EngineError) -> Generation {
        precondition(!request.promptTokens.isEmpty, "a request without tokens")
        let promptCount =
            request.promptTokens.count + (request.adapter?.virtualTokenCount ?? 0)
        let limit = configuration.maximumContextLength
        let vocabularySize = request.adapter?.traits.vocabularySize ?? vocabularySize
        guard promptCount + min(request.maximumTokenCount, 1) <= limit else {
            throw .promptTooLong(tokenCount: promptCount, limit: limit)
        }
        for token in request.promptTokens where token < 0 || Int(token) >= vocabularySize {
            throw .invalidToken(token, vocabularySize: vocabularySize)
        }
        guard let place = reservation.take(tokenCount: promptCount) else {
            throw .queueFull(retryAfter: .seconds(1))
        }
        let id = SequenceID(value: nextID.wrappingAdd(1, ordering: .relaxed).oldValue)
        let mailbox = mailbox
        let channel = EventChannel(capacity: configuration.eventBufferCount) { signal in
            switch signal {
            case .resumed: mailbox.send(.resume(id))
            case .abandoned: mailbox.send(.abandon(id))
            case .satisfied: mailbox.send(.satisfy(id))
            }
        }
        let isSent = mailbox.send(
            .submit(
                .init(
                    id: id, request: request, channel: channel, place: place, submitted: .now)))
        guard isSent else { throw .shuttingDown }
        return Generation(channel: channel)
    }

    public var maximumContextLength: Int { configuration.maximumContextLength }
    public var vocabularySize: Int { model.configuration.vocabularySize }

    // MARK: - Adapters

    /// Starts loading an adapter that requests are expected for.
    public func preload(_ adapter: AdapterReference) { mailbox.send(.preload(adapter)) }

    /// Keeps an adapter version resident while anything else can make room.
    public func setPinned(_ id: AdapterVersionID, _ isPinned: Bool) {
        mailbox.send(.setPinned(id, isPinned))
    }

    /// Evicts an adapter version as soon as no running sequence uses it.
    public func forget(_ id: AdapterVersionID) { mailbox.send(.forget(id)) }

    // MARK: - State

    /// The state after the last step, with the adapters as of now.
    public func statistics() -> EngineStatistics {
        var statistics = shared.statistics.withLock { $0 }
        roster.describe(&statistics)
        return statistics
    }

    /// Checks what the engine notes of its memory: every block in one use, held as often as sequences
    /// hold it, and cached or charged as prefix cache and residency say. Takes some milliseconds of
    /// the engine's thread.
    ///
    /// - Returns: what is wrong, if anything; nil also after a shutdown, which checks for itself.
    public func findFault() async -> String? {
        await withCheckedContinuation { continuation in
            let isAsked = mailbox.send(.check { continuation.resume(returning: $0) })
            if !isAsked { continuation.resume(returning: nil) }
        }
    }

    /// Whether the engine's thread is waiting for work or began its step recently.
    public func isAlive(within limit: Duration = .seconds(60)) -> Bool {
        let heartbeat = shared.heartbeat.withLock { $0 }
        return !heartbeat.isBusy || ContinuousClock.now - heartbeat.stepStart < limit
    }

    /// Takes no more requests, lets those that it has run to their end, and cancels what is left at
    /// the deadline. Returns once the engine's thread has ended.
    public func shutdown(drainDeadline: Duration) async {
        queue.close()
        mailbox.send(.drain)
        let mailbox = mailbox
        let deadline = Task {
            try await Task.sleep(for: drainDeadline)
            mailbox.send(.stop)
        }
        await withCheckedContinuation { continuation in
            let isStopped = shared.stopped.withLock { stopped in
                if !stopped.isStopped { stopped.waiters.append(continuation) }
                return stopped.isStopped
            }
            if isStopped { continuation.resume() }
        }
        deadline.cancel()
    }
}

/// Why the engine did not start.
public struct EngineStartError: Error, CustomStringConvertible, Sendable {
    public let description: String
}
