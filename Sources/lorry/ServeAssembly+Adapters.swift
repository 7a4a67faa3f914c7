import Foundation
import Logging
import LorryAPI
import LorryConfiguration
import LorryEngine
import LorryModel
import LorryRegistry
import LorryTensor

// Adapters: where they are kept, which are there from the start, and what is made of several.
extension ServeAssembly {
    func openRegistry(
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
            try AdapterTexts.check(folder)
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
    func importAdapters(into registry: AdapterRegistry) async throws {
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
    func preloadPinned(_ services: APIServices) {
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

    func combinations(
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
}
