import Dispatch
import Foundation
import LorryAPI
import LorryEngine
import LorryRegistry
import ServiceLifecycle
import Synchronization

/// Makes the health routes say that the server stops, before anything else does.
struct ReadinessService: Service {
    let readiness: Readiness

    func run() async throws {
        try? await gracefulShutdown()
        readiness.advance(to: .stopping)
    }
}

/// Stops the engine once the connections have ended.
struct EngineLifecycle: Service {
    let engine: Engine

    func run() async throws {
        try? await gracefulShutdown()
        // The connections have drained: whoever still generates has no reader.
        await engine.shutdown(drainDeadline: .seconds(1))
    }
}

/// Gives the state directory up, last.
struct RegistryService: Service {
    let registry: AdapterRegistry

    func run() async throws {
        try? await gracefulShutdown()
        await registry.close()
    }
}

/// Ends the process at the second SIGTERM or SIGINT, as somebody who does not want to wait asks for.
///
/// At once and without clean-up, which costs nothing but the requests under way: what was answered is
/// on the disk, and the next start sweeps what a crash would have left too.
final class SecondSignal {
    private final class Counter: Sendable {
        let value = Atomic(0)
    }

    private let sources: [any DispatchSourceSignal]

    init() {
        let counter = Counter()
        // A queue of its own: nothing that blocks the others may hold it up.
        let queue = DispatchQueue(label: "lorry.signals")
        sources = [SIGTERM, SIGINT].map { number in
            // ServiceLifecycle, which takes the first one, ignores them in the same way.
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
            source.setEventHandler {
                let count = Int(clamping: source.data)
                let before = counter.value.wrappingAdd(count, ordering: .relaxed).oldValue
                guard before + count > 1 else { return }
                FileHandle.standardError.write(Data("lorry serve: ended by a second signal\n".utf8))
                // What a shell reports for a process that a signal ended.
                _exit(128 + number)
            }
            source.resume()
            return source
        }
    }

    func cancel() {
        for source in sources { source.cancel() }
    }
}

/// Why the server did not start: something that the user gave is wrong.
struct StartError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
