import Foundation
import Logging
import LorryConfiguration
import LorryModel
import LorryTensor
import ServiceLifecycle
import Synchronization

/// The cache of packed weights in the state directory, and its work once the server is ready.
///
/// Writing waits for that because it takes seconds in which nobody should have to wait, and needs
/// nothing but weights that are in memory anyway. So does moving mapped weights to huge pages. Both
/// run on a thread of their own at low priority.
final class WeightCacheService: Service {
    let cache: WeightCache
    private let isCancelled = Atomic(false)
    private let writing: (ended: AsyncStream<Never>, end: AsyncStream<Never>.Continuation)
    private let hasStarted = Atomic(false)

    /// - Parameter stateDirectory: need not be there yet.
    init(stateDirectory: String, logger: Logger) {
        let folder = URL(filePath: stateDirectory).appending(path: "weights")
        cache = WeightCache(folder: folder) { Self.log($0, logger) }
        let (stream, continuation) = AsyncStream.makeStream(of: Never.self)
        writing = (stream, continuation)
    }

    /// Starts what the load has left to be done.
    func start() {
        guard !hasStarted.exchange(true, ordering: .relaxed) else { return }
        let thread = Thread { [self] in
            nameThread("lorry-weights")
            #if os(Linux)
                // There a nice value belongs to a thread, not to its process.
                _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
            #endif
            cache.finishPending { isCancelled.load(ordering: .relaxed) }
            writing.end.finish()
        }
        thread.start()
    }

    /// Ends when the server stops; a file that is half written by then is removed.
    func run() async throws {
        try? await gracefulShutdown()
        isCancelled.store(true, ordering: .relaxed)
        guard hasStarted.load(ordering: .relaxed) else { return }
        for await _ in writing.ended {}
    }

    private static func log(_ event: WeightCache.Event, _ logger: Logger) {
        switch event {
        case .used(let path, let byteCount):
            logger.info(
                "packed weights read from the cache",
                metadata: ["path": "\(path)", "bytes": "\(byteCount)"])
        case .refused(let path, let reason):
            logger.warning(
                "cached weights not used; packing again",
                metadata: ["path": "\(path)", "reason": "\(reason)"])
        case .written(let path, let byteCount, let duration):
            logger.info(
                "packed weights written to the cache",
                metadata: [
                    "path": "\(path)", "bytes": "\(byteCount)", "took": "\(duration)",
                ])
        case .notWritten(let path, let reason):
            logger.warning(
                "packed weights not written to the cache",
                metadata: ["path": "\(path)", "reason": "\(reason)"])
        case .cancelled(let path):
            logger.info("writing of the weight cache ended early", metadata: ["path": "\(path)"])
        case .removed(let path):
            logger.info("older cached weights removed", metadata: ["path": "\(path)"])
        }
    }
}
