import Foundation
import Logging
import LorryAPI
import LorryConfiguration
import LorryEngine
import LorryHTTP
import LorryMetrics
import LorryModel
import LorryRegistry
import LorryTensor
import LorryText
import Metrics
import ServiceLifecycle
import UnixSignals

/// Puts the server's parts together, from the model's files to the listening socket.
///
/// Everything that can be wrong with what the user gave is found here, before the server listens.
struct ServeAssembly {
    let settings: ServeConfiguration
    let logger: Logger
    private let modelDirectory: URL
    /// Nil where no adapters are to be registered at start.
    let adapterDirectory: URL?
    let modelName: String
    /// Nil where the settings turn it off.
    private let weightCache: WeightCacheService?

    /// - Throws: `StartError` where no model is given and the example is not found.
    init(settings: ServeConfiguration, logger: Logger) throws {
        // The example's adapters are made for its model, so they come and go together.
        let example =
            settings.model == nil
            ? BundledExample.locate(executable: URL(filePath: "/proc/self/exe")) : nil
        guard let directory = settings.model.map({ URL(filePath: $0) }) ?? example?.model else {
            throw StartError("no --model is given, and the bundled example is not here")
        }
        adapterDirectory = settings.adapters.map { URL(filePath: $0) } ?? example?.adapters
        self.settings = settings
        self.logger = logger
        modelDirectory = directory.standardizedFileURL
        modelName = settings.modelName ?? modelDirectory.lastPathComponent
        weightCache =
            settings.cachesWeights
            ? WeightCacheService(stateDirectory: settings.stateDirectory, logger: logger) : nil
    }

    /// Serves until the process is told to stop.
    func run() async throws {
        let keyFile = try apiKeys()
        let keys = keyFile?.keys
        let workers = try makeWorkers()
        let model = try loadModel(workers)
        let text = TextCodec(tokenizer: try loadTokenizer(for: model))
        let metrics = makeMetrics()
        let engine = try makeEngine(model, workers, metrics, tenantCount: keys?.tenantCount ?? 1)
        let adapterFormat =
            settings.adapterWeights.map { OperandFormat($0) } ?? model.format.operandFormat
        let compilations = CompilationCache()
        let registry = try openRegistry(model, adapterFormat, compilations)
        try await importAdapters(into: registry)
        let readiness = Readiness()
        var services = APIServices(
            card: ModelCard(name: modelName), version: lorryVersion,
            engine: EngineService(engine), registry: registry, text: text,
            tokenizerFile: modelDirectory.appending(path: "tokenizer.json"),
            keys: keys.map { KeyRing($0) }, metrics: metrics, readiness: readiness
        ) { lease, task in
            if lease.checksums == nil, let problem = lease.contentProblem() {
                throw AdapterError(.damaged, problem)
            }
            return try AdapterCompiler.compile(
                directory: lease.directory, model: model, format: adapterFormat,
                checksums: lease.checksums, task: task, cache: compilations)
        }
        services.combinations = combinations(model, adapterFormat, compilations)
        services.allowedRoots = settings.allowedAdapterRoots.map { URL(filePath: $0) }
        EngineGauges.add(
            to: metrics.registry, modelName: modelName,
            blockTokenCount: KVLayout.blockSize, statistics: engine.statistics)
        preloadPinned(services)
        try await services.usage.restore(services.admission)
        try await serve(services, engine, readiness, keyFile)
    }

    // MARK: - Parts

    private func weightFormat() throws -> WeightFormat? {
        guard let name = settings.weights?.rawValue else { return nil }
        guard let format = WeightFormat(rawValue: name) else {
            throw StartError("--weights: \(name) is not in this build")
        }
        return format
    }

    private func apiKeys() throws -> KeyFile? {
        guard let path = settings.apiKeys else { return nil }
        // Until the server is ready a hangup shall not end it; what changes by then is read then.
        signal(SIGHUP, SIG_IGN)
        do {
            let file = try KeyFile(path: path)
            for warning in file.warnings { logger.warning("\(warning)") }
            return file
        } catch {
            throw StartError("\(ServeSetting.apiKeys.flag): \(error)")
        }
    }

    private func makeWorkers() throws -> WorkerPool {
        _ = try Kernels.selection.get()
        return WorkerPool(threadCount: settings.threadCount ?? Machine.physicalCoreCount)
    }

    private func loadModel(_ workers: WorkerPool) throws -> DecoderModel {
        let bar = ProgressBar(label: "loading \(modelDirectory.lastPathComponent)")
        let start = ContinuousClock.now
        let model = try DecoderModel(
            directory: modelDirectory, format: try weightFormat(),
            contextLength: settings.maximumContextTokenCount, pool: workers,
            cache: weightCache?.cache
        ) { bar.update($0) }
        bar.finish()
        logger.info(
            "model loaded",
            metadata: [
                "model": "\(modelName)", "path": "\(modelDirectory.path)",
                "architecture": "\(model.configuration.architecture.rawValue)",
                "weights": "\(model.format.rawValue)", "bytes": "\(model.byteCount)",
                "context": "\(model.contextLength)", "kernels": "\(Kernels.level.rawValue)",
                "threads": "\(workers.threadCount)", "took": "\(ContinuousClock.now - start)",
            ])
        return model
    }

    private func loadTokenizer(for model: DecoderModel) throws -> Tokenizer {
        let tokenizer = try Tokenizer(directory: modelDirectory)
        guard tokenizer.vocabularySize <= model.configuration.vocabularySize else {
            throw StartError(
                "\(modelDirectory.path)/tokenizer.json: has \(tokenizer.vocabularySize) tokens, "
                    + "the model \(model.configuration.vocabularySize)")
        }
        return tokenizer
    }

    private func makeMetrics() -> ServerMetrics {
        let registry = PrometheusRegistry(configuration: ServerMetrics.configuration())
        MetricsSystem.bootstrap(registry)
        return ServerMetrics(registry: registry, modelName: modelName)
    }

    private func makeEngine(
        _ model: DecoderModel, _ workers: WorkerPool, _ metrics: ServerMetrics, tenantCount: Int
    ) throws -> Engine {
        let context = min(settings.maximumContextTokenCount ?? .max, model.contextLength)
        var configuration = EngineConfiguration(
            memoryBudgetByteCount: settings.memoryBudgetByteCount ?? defaultBudget(),
            maximumContextLength: context)
        if let count = settings.maximumBatchTokenCount {
            configuration.maximumBatchTokenCount = count
        }
        configuration.cachesPrefixes = settings.cachesPrefixes
        configuration.kvFormat = settings.kvCache.map { OperandFormat($0) }
        if let count = settings.maximumRunningCount { configuration.maximumRunningCount = count }
        if let count = settings.maximumWaitingCount { configuration.maximumWaitingCount = count }
        if let count = settings.maximumWaitingTokenCount {
            configuration.maximumWaitingTokenCount = count
        }
        if let target = settings.stepTarget { configuration.stepTarget = target }
        configuration.hasSeveralTenants = tenantCount > 1
        return try Engine(
            model: model, configuration: configuration, workers: workers,
            observer: EngineMetrics(
                registry: metrics.registry, modelName: modelName,
                didCheckMemory: { [logger] fault in
                    guard let fault else { return logger.info("memory is in order at the end") }
                    logger.error(
                        "memory is not in order at the end", metadata: ["fault": "\(fault)"])
                }))
    }

    /// Most of what is free once the weights are loaded; the rest is for requests, uploads and the
    /// page cache. Weights that are still mapped count as free, and soon are not.
    private func defaultBudget() -> Int {
        let mapped = weightCache?.cache.mappedByteCount ?? 0
        return max(64 << 20, (Machine.availableByteCount - mapped) / 10 * 7)
    }

    // MARK: - Serving

    private func serve(
        _ services: APIServices, _ engine: Engine, _ readiness: Readiness, _ keyFile: KeyFile?
    ) async throws {
        let listeners = Listeners(
            settings: settings, services: services, logger: logger,
            // Each sequence that is left fails with "shutting down": a status, or an event in a stream.
            onDrainTimeout: { await engine.shutdown(drainDeadline: .zero) },
            onReady: {
                readiness.advance(to: .ready)
                weightCache?.start()
            })
        // Stopped in reverse: not ready any more, then the connections, the engine, the registry.
        var parts: [any Service] = [
            RegistryService(registry: services.registry),
            UsageService(usage: services.usage, logger: logger), EngineLifecycle(engine: engine),
            listeners, ReadinessService(readiness: readiness),
        ]
        if let weightCache { parts.append(weightCache) }
        if let keyFile {
            parts.append(KeyFileService(file: keyFile, services: services, logger: logger))
        }
        let group = ServiceGroup(
            configuration: .init(
                services: parts.map { .init(service: $0) },
                gracefulShutdownSignals: [.sigterm, .sigint],
                logger: logger))
        let secondSignal = SecondSignal()
        defer { secondSignal.cancel() }
        try await group.run()
    }
}

extension OperandFormat {
    fileprivate init(_ setting: ServeConfiguration.OperandFormat) {
        self =
            switch setting {
            case .f32: .f32
            case .bf16: .bf16
            case .int8: .int8
            }
    }
}
