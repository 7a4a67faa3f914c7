import Logging
import LorryAPI
import LorryRegistry
import ServiceLifecycle
import UnixSignals

/// Reads the file of API keys again when it changes, and on SIGHUP. Where the new one is invalid,
/// the keys before stay.
struct KeyFileService: Service {
    let file: KeyFile
    let services: APIServices
    let logger: Logger

    private static let pollInterval = Duration.seconds(1)

    private enum Occasion: Sendable {
        case tick, hangup
    }

    func run() async throws {
        let (occasions, continuation) = AsyncStream.makeStream(
            of: Occasion.self, bufferingPolicy: .bufferingNewest(16))
        let hangups = await UnixSignalsSequence(trapping: .sighup)
        await withTaskGroup(of: Void.self) { group in
            group.addTask { for await _ in hangups { continuation.yield(.hangup) } }
            group.addTask {
                while !Task.isCancelled {
                    try? await Task.sleep(for: Self.pollInterval)
                    continuation.yield(.tick)
                }
            }
            var file = file
            for await occasion in occasions.cancelOnGracefulShutdown() {
                await take(file.poll(isForced: occasion == .hangup), of: file)
            }
            group.cancelAll()
        }
    }

    private func take(_ outcome: KeyFile.Outcome, of file: KeyFile) async {
        switch outcome {
        case .unchanged: return
        case .refused(let reason):
            services.metrics.keysRead(succeeded: false)
            logger.error(
                "API keys not read again; those before stay", metadata: ["reason": "\(reason)"])
        case .read(let keys):
            guard let changes = services.keys?.replace(with: keys) else { return }
            services.metrics.keysRead(succeeded: true)
            logger.notice("API keys read again", metadata: ["changes": "\(changes)"])
            for warning in file.warnings { logger.warning("\(warning)") }
            do {
                try await services.registry.note(
                    .keys, detail: changes.description, actor: "serve")
            } catch {
                logger.error(
                    "the audit log does not have that API keys were read again",
                    metadata: ["reason": "\(error)"])
            }
        }
    }
}
