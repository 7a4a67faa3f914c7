import Foundation
import LorryModel
import LorryTensor

/// Brings adapters into memory on threads of its own, so that loads do not hold up steps.
///
/// The threads have the priority of those that compute steps, without interrupting them when they
/// wake up: an adapter of 10 MB takes 4 ms of a core, and with a lower priority it takes many times
/// as long while steps gain nothing.
///
/// Loads begin in the order in which they came, those that `prefer` names before others. While one
/// is compiled, the files of the next are read ahead.
package final class AdapterLoader: Sendable {
    package typealias Completion =
        @Sendable (AdapterReference, Result<AdapterProgram, any Error>) -> Void

    private let queue: Queue

    /// - Parameters:
    ///   - threadCount: loads under way at once.
    ///   - completion: called on a load's thread when it has ended; not for one that was cancelled.
    package init(
        threadCount: Int = AdapterLoader.defaultThreadCount, completion: @escaping Completion
    ) {
        let queue = Queue(threadCount: threadCount)
        self.queue = queue
        for index in 0..<threadCount {
            let thread = Thread {
                nameThread("lorry-load-\(index)")
                makeThreadPatient()
                while let (job, next) = queue.take() {
                    next?.readAhead()
                    let start = ContinuousClock.now
                    let result = Result { try job.load() }
                    let isLoaded = (try? result.get()) != nil
                    queue.finish(job, took: isLoaded ? .now - start : nil)
                    completion(job, result)
                }
            }
            thread.start()
        }
    }

    deinit { stop() }

    /// One for each four cores: a load takes a core's time from the steps, and more than one at
    /// once only pays where cores abound.
    package static var defaultThreadCount: Int {
        max(1, min(8, ProcessInfo.processInfo.activeProcessorCount / 4))
    }

    package func load(_ reference: AdapterReference) { queue.add(reference) }

    /// Says which loads are wanted first, in this order; takes the place of what was said before.
    package func prefer(_ ids: [AdapterVersionID]) { queue.prefer(ids) }

    /// Forgets a load that nobody waits for any more.
    ///
    /// - Returns: false, changing nothing, where it has begun already.
    package func cancel(_ id: AdapterVersionID) -> Bool { queue.remove(id) }

    /// How long an adapter would take from now, behind the loads that are queued and under way.
    package func expectedDuration(byteCount: Int) -> Duration {
        queue.expectedDuration(byteCount: byteCount)
    }

    package func stop() { queue.stop() }
}

/// The loads that have not begun, and what the past ones took.
///
/// Safe because everything mutable is only touched with `condition` locked.
private final class Queue: @unchecked Sendable {
    private let condition = NSCondition()
    private let threadCount: Int
    /// In the order in which they came.
    private var waiting: [AdapterReference] = []
    private var ranks: [AdapterVersionID: Int] = [:]
    private var estimate = LoadTimeEstimate()
    /// Bytes of the adapters that wait or are being loaded.
    private var byteCount = 0
    private var isStopped = false

    init(threadCount: Int) { self.threadCount = threadCount }

    func add(_ reference: AdapterReference) {
        condition.withLock {
            guard !isStopped else { return }
            waiting.append(reference)
            byteCount += reference.byteCount
            condition.signal()
        }
    }

    func prefer(_ ids: [AdapterVersionID]) {
        condition.withLock {
            ranks.removeAll(keepingCapacity: true)
            for (rank, id) in ids.enumerated() where ranks[id] == nil { ranks[id] = rank }
        }
    }

    func remove(_ id: AdapterVersionID) -> Bool {
        condition.withLock {
            guard let index = waiting.firstIndex(where: { $0.id == id }) else { return false }
            byteCount -= waiting.remove(at: index).byteCount
            return true
        }
    }

    /// Waits for a load to begin.
    ///
    /// - Returns: it and the one that will be next; nil once the loader is stopped.
    func take() -> (AdapterReference, next: AdapterReference?)? {
        condition.withLock {
            while waiting.isEmpty, !isStopped { condition.wait() }
            guard let index = first() else { return nil }
            let job = waiting.remove(at: index)
            return (job, first().map { waiting[$0] })
        }
    }

    /// - Parameter duration: nil where the load failed.
    func finish(_ job: AdapterReference, took duration: Duration?) {
        condition.withLock {
            byteCount -= job.byteCount
            if let duration { estimate.note(byteCount: job.byteCount, duration: duration) }
        }
    }

    func expectedDuration(byteCount: Int) -> Duration {
        condition.withLock {
            estimate.duration(byteCount: byteCount)
                + estimate.duration(byteCount: self.byteCount) / threadCount
        }
    }

    func stop() {
        condition.withLock {
            isStopped = true
            waiting = []
            condition.broadcast()
        }
    }

    private func first() -> Int? {
        waiting.indices.min { a, b in
            (ranks[waiting[a].id] ?? .max, a) < (ranks[waiting[b].id] ?? .max, b)
        }
    }
}
