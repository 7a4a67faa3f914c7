import LorryEngine
import LorryModel
import LorryRegistry

extension APIServices {
    /// The base model or adapter version that `selection` names, with its files held.
    ///
    /// - Throws: `APIError` 404 where there is none, or where the key may not use it.
    func resolve(
        _ selection: ModelSelection, for principal: Principal
    ) throws(APIError) -> ServedModel {
        switch selection.choice {
        case .base: return baseModel
        case .named(let name):
            if name == card.name { return baseModel }
            if name.hasPrefix("\(card.name):") {
                let adapter = String(name.dropFirst(card.name.count + 1))
                return try adapterModel(adapter, shown: name, principal)
            }
            return try adapterModel(name, shown: name, principal)
        case .adapter(let name): return try adapterModel(name, shown: name, principal)
        case .sum(let summands): return try sumModel(summands, principal)
        }
    }

    var baseModel: ServedModel { ServedModel(name: card.name, adapter: nil, text: text) }

    private func adapterModel(
        _ wanted: String, shown: String, _ principal: Principal
    ) throws(APIError) -> ServedModel {
        try plainModel(lease(wanted, shown: shown, principal), shown: shown)
    }

    func plainModel(_ lease: AdapterLease, shown: String) throws(APIError) -> ServedModel {
        ServedModel(name: shown, adapter: reference(to: lease), text: try codec(of: lease))
    }

    /// What an adapter speaks through.
    func codec(of lease: AdapterLease) throws(APIError) -> TextCodec {
        try adapterTexts.codec(
            version: lease.record.version.digest, directory: lease.directory)
    }

    /// The adapter version that a client named, with its files held.
    ///
    /// - Throws: `APIError` 404 where there is none, or where the key may not use it.
    func lease(
        _ wanted: String, shown: String, _ principal: Principal
    ) throws(APIError) -> AdapterLease {
        let name = String(wanted.prefix { $0 != "@" })
        guard principal.mayUse(adapter: name) else { throw .modelNotFound(shown) }
        do {
            return try registry.acquire(wanted, tenant: principal.tenant)
        } catch {
            let isUnknown = error.kind == .notFound || error.kind == .invalid
            throw isUnknown ? .modelNotFound(shown) : APIError(error)
        }
    }

    /// How the engine gets at a version of an adapter, whose files stay while it holds this.
    public func reference(to lease: AdapterLease) -> AdapterReference {
        let load = loadAdapter
        let registry = registry
        return AdapterReference(
            id: LorryEngine.AdapterVersionID(lease.record.version.digest), name: lease.record.name,
            byteCount: lease.record.byteCount, traits: lease.record.traits, hold: lease,
            readAhead: { AdapterCompiler.readAhead(directory: lease.directory) },
            load: {
                do {
                    return try load(lease)
                } catch let error as AdapterError where error.kind == .damaged {
                    registry.reportDamage(lease.record.version, actor: "adapter load")
                    throw error
                }
            })
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
}
