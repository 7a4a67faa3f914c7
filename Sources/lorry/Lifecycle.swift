import Logging
import LorryAPI
import LorryEngine
import LorryRegistry
import ServiceLifecycle

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

/// Writes down what was used, every few seconds and when all requests have ended.
struct UsageService: Service {
    let usage: UsageLedger
    let logger: Logger

    func run() async throws {
        await cancelWhenGracefulShutdown { await usage.run(log: logger) }
        do {
            try await usage.flush()
        } catch {
            logger.error("the last usage could not be written", metadata: ["reason": "\(error)"])
        }
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

/// Why the server did not start: something that the user gave is wrong.
struct StartError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
