import Foundation
import LorryModel
import LorryTensor

/// Brings adapters into memory on threads of its own, so that loads do not hold up steps.
///
/// The threads have the priority of those that compute steps, without interrupting them when they
/// wake up: an adapter of 10 MB takes 4 ms of a core, and with a lower priority it takes many times
/// as long while steps gain nothing.
///
/// Loads begin in the order in which they came, which is the scheduler's. While one is compiled, the
/// files of the next are read ahead.
package final class AdapterLoader: Sendable {
    package typealias Completion =
        @Sendable (AdapterReference, Result<AdapterProgram, any Error>) -> Void

    private let queue = Queue()

    /// - Parameters:
    ///   - threadCount: loads under way at once.
    ///   - completion: called on a load's thread when it has ended.
    package init(
        threadCount: Int = AdapterLoader.defaultThreadCount, completion: @escaping Completion
    ) {
        let queue = queue
        for index in 0..<threadCount {
            let thread = Thread {
                nameThread("lorry-load-\(index)")
                makeThreadPatient()
                while let (job, next) = queue.take() {
                    next?.readAhead()
                    completion(job, Result { try job.load() })
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

    package func stop() { queue.stop() }
}

/// The loads that have not begun.
///
/// Safe because everything mutable is only touched with `condition` locked.
private final class Queue: @unchecked Sendable {
    private let condition = NSCondition()
    /// In the order in which they came.
    private var waiting: [AdapterReference] = []
    private var isStopped = false

    func add(_ reference: AdapterReference) {
        condition.withLock {
            guard !isStopped else { return }
            waiting.append(reference)
            condition.signal()
        }
    }

    /// Waits for a load to begin.
    ///
    /// - Returns: it and the one that will be next; nil once the loader is stopped.
    func take() -> (AdapterReference, next: AdapterReference?)? {
        condition.withLock {
            while waiting.isEmpty, !isStopped { condition.wait() }
            guard !waiting.isEmpty else { return nil }
            return (waiting.removeFirst(), waiting.first)
        }
    }

    func stop() {
        condition.withLock {
            isStopped = true
            waiting = []
            condition.broadcast()
        }
    }
}
