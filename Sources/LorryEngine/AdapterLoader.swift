import Foundation
import LorryModel
import LorryTensor

/// Compiles adapters on threads of its own, at low priority, so that loads do not hold up steps.
package final class AdapterLoader: Sendable {
    /// Safe because `jobs` and `isStopped` are only touched with `condition` locked.
    private final class Queue: @unchecked Sendable {
        let condition = NSCondition()
        var jobs: [AdapterReference] = []
        var isStopped = false
    }

    package typealias Completion =
        @Sendable (AdapterReference, Result<AdapterProgram, any Error>) -> Void

    private let queue = Queue()

    package init(threadCount: Int = 2, completion: @escaping Completion) {
        for index in 0..<threadCount {
            let thread = Thread { [queue] in
                nameThread("lorry-load-\(index)")
                Self.lowerPriority()
                while let job = Self.next(queue) {
                    completion(job, Result { try job.load() })
                }
            }
            thread.start()
        }
    }

    deinit { stop() }

    func load(_ reference: AdapterReference) {
        queue.condition.lock()
        queue.jobs.append(reference)
        queue.condition.signal()
        queue.condition.unlock()
    }

    package func stop() {
        queue.condition.lock()
        queue.isStopped = true
        queue.jobs = []
        queue.condition.broadcast()
        queue.condition.unlock()
    }

    private static func next(_ queue: Queue) -> AdapterReference? {
        queue.condition.lock()
        defer { queue.condition.unlock() }
        while queue.jobs.isEmpty, !queue.isStopped { queue.condition.wait() }
        return queue.jobs.isEmpty ? nil : queue.jobs.removeFirst()
    }

    /// On Linux a nice value belongs to a thread, not to its process.
    private static func lowerPriority() {
        #if os(Linux)
            _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
        #endif
    }
}
