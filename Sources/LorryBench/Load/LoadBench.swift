import NIOCore
import NIOPosix

/// Loads a server over HTTP: a client that sends a workload and times every token.
public final class LoadBench: Sendable {
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let loop: any EventLoop
    private let driver: NIOLoopBoundBox<LoadDriver?>
    private let server: LoadServer
    private let writer: RequestWriter

    /// Whom the requests are for, and of what prompts are made.
    public struct Prompts: Sendable {
        public var baseModel: String
        /// By their numbers in the workload.
        public var adapters: [String]
        public var vocabularySize: Int
        public var sharedPrefixTokenCount: Int
        public var seed: UInt64

        public init(
            baseModel: String, adapters: [String], vocabularySize: Int,
            sharedPrefixTokenCount: Int = 0, seed: UInt64 = 0
        ) {
            self.baseModel = baseModel
            self.adapters = adapters
            self.vocabularySize = vocabularySize
            self.sharedPrefixTokenCount = sharedPrefixTokenCount
            self.seed = seed
        }
    }

    public init(server: LoadServer, prompts: Prompts) throws {
        self.server = server
        loop = group.next()
        driver = .makeEmptyBox(valueType: LoadDriver.self, eventLoop: loop)
        writer = try RequestWriter(
            baseModel: prompts.baseModel, adapters: prompts.adapters,
            vocabularySize: prompts.vocabularySize,
            sharedPrefixTokenCount: prompts.sharedPrefixTokenCount, seed: prompts.seed)
    }

    /// Sends all requests and waits for their answers. One run at a time.
    ///
    /// - Parameter onProgress: told five times a second, on the client's thread.
    public func run(
        _ source: LoadSource, _ options: LoadOptions,
        onProgress: @escaping @Sendable (LoadProgress) -> Void = { _ in }
    ) async throws -> LoadResult {
        let (loop, server, writer, driver) = (loop, server, writer, driver)
        let result = loop.flatSubmit { () -> EventLoopFuture<LoadResult> in
            let done = loop.makePromise(of: LoadResult.self)
            do {
                let new = try LoadDriver(
                    source, server, options, writer, on: loop, done: done, onProgress: onProgress)
                driver.value = new
                new.begin()
            } catch {
                done.fail(error)
            }
            return done.futureResult
        }
        return try await result.get()
    }

    /// Ends the run that is under way, from any thread: what it has is its result.
    public func stop() {
        let driver = driver
        loop.execute { driver.value?.stop() }
    }

    public func shutdown() async { try? await group.shutdownGracefully() }
}
