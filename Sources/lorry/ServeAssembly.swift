import Foundation
import Hummingbird
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
import NIOCore
import ServiceLifecycle
import UnixSignals

/// Puts the server's parts together, from the model's files to the listening socket.
///
/// Everything that can be wrong with what the user gave is found here, before the server listens.
struct ServeAssembly {
    private let settings: ServeConfiguration
    private let logger: Logger
    private let modelDirectory: URL
    /// Nil where no adapters are to be registered at start.
    private let adapterDirectory: URL?
    private let modelName: String
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
        let keys = try apiKeys()
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
            keys: keys, metrics: metrics, readiness: readiness
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
        try await serve(services, engine, readiness)
    }

    private func combinations(
        _ model: DecoderModel, _ format: OperandFormat, _ compilations: CompilationCache
    ) -> AdapterCombinations {
        AdapterCombinations(
            describeSum: { adapters in
                try AdapterCompiler.describe(
                    sumOf: adapters.map(\.summand), configuration: model.configuration,
                    format: format)
            },
            loadSum: { adapters in
                for lease in adapters.map(\.lease) where lease.checksums == nil {
                    if let problem = lease.contentProblem() {
                        throw AdapterError(.damaged, problem)
                    }
                }
                return try AdapterCompiler.compile(
                    sumOf: adapters.map(\.summand), model: model, format: format,
                    cache: compilations)
            },
            merge: { inputs, options in
                try AdapterMerge(inputs, options: options, configuration: model.configuration)
            })
    }

    // MARK: - Parts

    private func weightFormat() throws -> WeightFormat? {
        guard let name = settings.weights?.rawValue else { return nil }
        guard let format = WeightFormat(rawValue: name) else {
            throw StartError("--weights: \(name) is not in this build")
        }
        return format
    }

    private func apiKeys() throws -> APIKeys? {
        guard let path = settings.apiKeys else { return nil }
        guard let data = FileManager.default.contents(atPath: path) else {
            throw StartError("--api-keys: \(path) cannot be read")
        }
        return try APIKeys(yaml: String(decoding: data, as: UTF8.self))
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

    private func openRegistry(
        _ model: DecoderModel, _ format: OperandFormat, _ compilations: CompilationCache
    ) throws -> AdapterRegistry {
        let configuration = model.configuration
        var registryConfiguration = RegistryConfiguration()
        registryConfiguration.reservedNames = [modelName]
        registryConfiguration.misfit = {
            AdapterCompiler.misfit(
                directory: $0, configuration: configuration, format: format, cache: compilations)
        }
        return try AdapterRegistry(
            stateDirectory: URL(filePath: settings.stateDirectory),
            configuration: registryConfiguration,
            log: logger
        ) { folder in
            do throws(AdapterError) {
                return try AdapterCompiler.inspect(
                    directory: folder, model: model, format: format)
            } catch {
                throw RegistryError(
                    error.kind == .unsupported ? .unsupported : .invalid, error.message)
            }
        }
    }

    /// Registers the folders of `--adapters`. One that is refused is logged, and ends the start only
    /// with `--strict-adapters`.
    private func importAdapters(into registry: AdapterRegistry) async throws {
        guard let directory = adapterDirectory else { return }
        let bar = ProgressBar(label: "registering adapters")
        let outcomes = try await registry.importFolders(in: directory, actor: "serve") {
            done, total in
            bar.update(Double(done) / Double(max(total, 1)))
        }
        bar.finish()
        var refused = 0
        for outcome in outcomes {
            let name = Logger.MetadataValue.string(outcome.name)
            switch outcome.result {
            case .registered(let record):
                logger.info(
                    "adapter registered",
                    metadata: ["adapter": name, "version": "\(record.version)"])
            case .unchanged: logger.debug("adapter unchanged", metadata: ["adapter": name])
            case .superseded:
                logger.notice(
                    "adapter's folder is older than the registered version, which stays",
                    metadata: ["adapter": name])
            case .refused(let error):
                refused += 1
                logger.error(
                    "adapter refused", metadata: ["adapter": name, "reason": "\(error)"])
            }
        }
        if refused > 0, settings.strictAdapters {
            throw StartError("\(refused) of \(outcomes.count) adapters were refused (see above)")
        }
    }

    /// Pinned adapters are brought into memory before anyone asks for them.
    private func preloadPinned(_ services: APIServices) {
        var query = ListQuery()
        query.limit = Int.max
        for record in services.registry.list(query).adapters
        where record.pinned && record.state == .ready {
            guard let lease = try? services.registry.acquire(record.name, tenant: record.tenant)
            else { continue }
            let reference = services.reference(to: lease)
            services.engine.setPinned(reference.id, true)
            services.engine.preload(reference)
        }
    }

    // MARK: - Serving

    private func serve(
        _ services: APIServices, _ engine: Engine, _ readiness: Readiness
    ) async throws {
        var http = HTTPServerConfiguration()
        http.host = settings.host
        http.port = settings.port
        if let certificate = settings.tlsCertificate, let key = settings.tlsKey {
            http.tls = TLSFiles(certificateChain: certificate, privateKey: key)
        }
        http.drainTimeout = settings.drainTimeout
        // Each sequence that is left fails with "shutting down": a status, or an event in a stream.
        http.onDrainTimeout = { await engine.shutdown(drainDeadline: .zero) }
        setConnectionLimits(&http.limits)
        let limits = services.limits
        http.bodyLimit = { limits.bodyByteCount(for: $0) }
        let scheme = http.tls == nil ? "http" : "https"
        let server = HTTPServer(
            responder: APIRouter.responder(services), configuration: http, logger: logger
        ) { address in
            readiness.advance(to: .ready)
            weightCache?.start()
            Self.announce("\(scheme)://\(Self.hostAndPort(address))")
        }
        // Stopped in reverse: not ready any more, then the connections, the engine, the registry.
        var parts: [any Service] = [
            RegistryService(registry: services.registry), EngineLifecycle(engine: engine), server,
            ReadinessService(readiness: readiness),
        ]
        if let weightCache { parts.append(weightCache) }
        let group = ServiceGroup(
            configuration: .init(
                services: parts.map { .init(service: $0) },
                gracefulShutdownSignals: [.sigterm, .sigint],
                logger: logger))
        let secondSignal = SecondSignal()
        defer { secondSignal.cancel() }
        try await group.run()
    }

    /// Connections leave file descriptors for everything else: adapters, the database, uploads.
    private func setConnectionLimits(_ limits: inout HTTPLimits) {
        limits.connectionCount = settings.maximumConnectionCount ?? limits.connectionCount
        limits.connectionCountPerAddress =
            settings.maximumConnectionCountPerAddress ?? limits.connectionCountPerAddress
        let room = max(16, Machine.raiseOpenFileLimit() - 256)
        guard limits.connectionCount > room else { return }
        logger.warning(
            "fewer connections, since the limit of open files is low",
            metadata: ["connections": "\(room)", "wanted": "\(limits.connectionCount)"])
        limits.connectionCount = room
    }

    private static func hostAndPort(_ address: SocketAddress) -> String {
        let host = address.ipAddress ?? "localhost"
        return (host.contains(":") ? "[\(host)]" : host) + ":\(address.port ?? 0)"
    }

    /// The one line on standard output, for people and for scripts that wait for it.
    private static func announce(_ url: String) {
        FileHandle.standardOutput.write(Data("Lorry is ready on \(url)\n".utf8))
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
