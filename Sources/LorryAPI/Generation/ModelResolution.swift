import LorryEngine
import LorryModel
import LorryRegistry

extension APIServices {
    /// The base model or adapter version that `selection` names, with its files held.
    ///
    /// - Throws: `APIError` 404 where there is none, or where the key may not use it; 400 where it
    ///   does not know the task.
    func resolve(
        _ selection: ModelSelection, for principal: Principal
    ) throws(APIError) -> ServedModel {
        let task = selection.taskID
        switch selection.choice {
        case .base: return try baseModel(task)
        case .unnamed:
            if let path = selection.loraPath {
                return try adapterModel(path, shown: path, task, principal)
            }
            guard let model = try defaultModel(for: principal) else { return try baseModel(task) }
            guard task == nil else { throw Self.withoutTasks("a default of adapters") }
            return model
        case .named(let name):
            if name == card.name {
                guard let path = selection.loraPath else { return try baseModel(task) }
                return try adapterModel(path, shown: path, task, principal)
            }
            if name.hasPrefix("\(card.name):") {
                let adapter = String(name.dropFirst(card.name.count + 1))
                return try adapterModel(adapter, shown: name, task, principal)
            }
            return try adapterModel(name, shown: name, task, principal)
        case .adapter(let name): return try adapterModel(name, shown: name, task, principal)
        case .sum(let summands):
            guard task == nil else { throw Self.withoutTasks("a sum of adapters") }
            return try sumModel(summands, principal)
        }
    }

    /// Tokens that a model reads: an adapter may know more than the base.
    func vocabularySize(of model: ServedModel) -> Int {
        model.adapter?.traits.vocabularySize ?? engine.vocabularySize
    }

    private func baseModel(_ task: Int?) throws(APIError) -> ServedModel {
        guard task == nil else { throw Self.withoutTasks("the base model") }
        return baseModel
    }

    private static func withoutTasks(_ model: String) -> APIError {
        .invalid("task_id", "task_id: \(model) has no tasks.")
    }

    var baseModel: ServedModel { ServedModel(name: card.name, adapter: nil, text: text) }

    private func adapterModel(
        _ wanted: String, shown: String, _ task: Int?, _ principal: Principal
    ) throws(APIError) -> ServedModel {
        let lease = try lease(wanted, shown: shown, principal)
        if let task {
            guard let taskCount = lease.record.traits.taskCount else {
                throw Self.withoutTasks("'\(shown)'")
            }
            guard task < taskCount else {
                throw .invalid(
                    "task_id",
                    "task_id: '\(shown)' has the tasks 0 to \(taskCount - 1), not \(task).")
            }
        }
        return try plainModel(lease, shown: shown, task: task ?? 0)
    }

    func plainModel(
        _ lease: AdapterLease, shown: String, task: Int = 0
    ) throws(APIError) -> ServedModel {
        ServedModel(
            name: shown, adapter: reference(to: lease, task: task), text: try codec(of: lease))
    }

    /// What an adapter speaks through.
    func codec(of lease: AdapterLease) throws(APIError) -> TextCodec {
        try adapterTexts.codec(
            version: lease.record.version.digest, directory: lease.directory
        ) {
            let problem = lease.textProblem()
            if problem != nil { registry.reportDamage(lease.record.version, actor: "server") }
            return problem
        }
    }

    /// The adapter version that a client named, with its files held.
    ///
    /// - Throws: `APIError` 404 where there is none, or where the key may not use it.
    func lease(
        _ wanted: String, shown: String, _ principal: Principal
    ) throws(APIError) -> AdapterLease {
        let name = String(wanted.prefix { $0 != "@" })
        let lease: AdapterLease
        do {
            lease = try registry.acquire(wanted, tenant: principal.tenant)
        } catch {
            // What a key may not use is not there, whatever state it is in.
            guard principal.mayUse(adapter: name) else { throw .modelNotFound(shown) }
            let isUnknown = error.kind == .notFound || error.kind == .invalid
            throw isUnknown ? .modelNotFound(shown) : APIError(error)
        }
        guard principal.mayUse(adapter: lease.record.name, as: name) else {
            throw .modelNotFound(shown)
        }
        return lease
    }

    /// How the engine gets at a version of an adapter, whose files stay while it holds this.
    ///
    /// - Parameter task: one that the adapter knows. Each is resident on its own.
    public func reference(to lease: AdapterLease, task: Int = 0) -> AdapterReference {
        let load = loadAdapter
        let registry = registry
        return AdapterReference(
            id: Self.identity(of: lease, task: task), name: lease.record.name,
            byteCount: lease.record.byteCount, traits: lease.record.traits, hold: lease,
            readAhead: { AdapterCompiler.readAhead(directory: lease.directory) },
            load: {
                do {
                    return try load(lease, task)
                } catch let error as AdapterError where error.kind == .damaged {
                    registry.reportDamage(lease.record.version, actor: "adapter load")
                    throw error
                }
            })
    }

    /// The version's digest for the first task; for others SHA-256 over the line `lorry-task 1` and
    /// the line `<version> <task>`.
    private static func identity(
        of lease: AdapterLease, task: Int
    ) -> LorryEngine.AdapterVersionID {
        let version = lease.record.version.digest
        guard task != 0 else { return LorryEngine.AdapterVersionID(version) }
        return LorryEngine.AdapterVersionID(hashing: "lorry-task 1\n\(version) \(task)\n")
    }

    /// The adapters that the key may use and that can be served, by name. A tenant's own adapter
    /// hides a shared one of the same name, also while its own is disabled, as `resolve` has it.
    func visibleAdapters(for principal: Principal) -> [AdapterRecord] {
        var query = ListQuery()
        query.tenants = [principal.tenant, AdapterKey.sharedTenant]
        query.limit = Int.max
        let records = registry.list(query).adapters.filter { principal.mayUse(adapter: $0.name) }
        let own = Set(records.filter { $0.tenant == principal.tenant }.map(\.name))
        return records.filter {
            $0.state == .ready && ($0.tenant == principal.tenant || !own.contains($0.name))
        }
    }

    /// The aliases that the key may use and that can be served, by name, as `resolve` has it: a
    /// tenant's own adapters and aliases hide shared ones.
    func visibleAliases(
        for principal: Principal
    ) -> [(alias: String, record: AdapterRecord)] {
        registry.aliases(of: [principal.tenant, AdapterKey.sharedTenant]).compactMap { alias in
            guard let record = try? lease(alias.name, shown: alias.name, principal).record,
                record.key == AdapterKey(name: alias.adapter, tenant: alias.tenant)
            else { return nil }
            return (alias.name, record)
        }
    }
}
