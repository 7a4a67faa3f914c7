import LorryEngine
import LorryModel
import LorryRegistry

/// Changes of the registry with what they mean for the engine: pinned versions are brought into
/// memory, versions that no name leads to any more may leave it.
struct AdapterChanges: Sendable {
    let services: APIServices
    let tenant: String
    /// Who the audit log names.
    let actor: String
    private let principal: Principal

    init(_ services: APIServices, for principal: Principal) {
        self.services = services
        self.principal = principal
        tenant = principal.tenant
        actor = principal.actor
    }

    /// - Throws: `notFound`, as for a name that there is not, where the key may not use the adapter.
    func check(_ name: String) throws(RegistryError) {
        guard principal.mayUse(adapter: name) else { throw .noAdapter(named: name) }
    }

    /// Whoever changes an alias must be free to use both it and what it stands for. What the key's
    /// list says is no secret to it; whether there is such an alias may be one.
    private func checkAlias(_ name: String) throws(RegistryError) {
        guard principal.allowedAdapters != nil else { return }
        let known = try? registry.alias(name: name, tenant: tenant)
        guard principal.mayUse(adapter: name), principal.mayUse(adapter: known?.adapter ?? name)
        else {
            throw RegistryError(
                .notFound,
                "this API key may not change an alias '\(shown(name))': its list of adapters must "
                    + "have both the alias and the adapter that it stands for")
        }
    }

    /// What is known of an addition before its first byte is read.
    ///
    /// - Throws: `notFound` where the key may not use the name, `overAllowance` where the tenant has
    ///   as many names as it may have.
    func checkAddition(_ name: String) throws(RegistryError) {
        try check(name)
        try registry.checkRoom(name: name, tenant: tenant, allowance: allowance)
    }

    /// What is known of a pin before the adapter that is to have it is there.
    ///
    /// - Throws: `overAllowance` where the tenant has pinned as many names as it may.
    func checkPin(_ name: String) throws(RegistryError) {
        try registry.checkPinRoom(name: name, tenant: tenant, allowance: allowance)
    }

    private var allowance: TenantAllowance { principal.tenantLimits.adapters }

    /// An upload that is not let grow beyond what the tenant may have at all.
    /// - Parameter byteCount: what the body will bring, where that is known.
    func makeUpload(
        for name: String, byteCount: Int? = nil
    ) throws(RegistryError) -> AdapterUpload {
        var limits = registry.uploadLimits
        if let bound = allowance.storedByteCount {
            limits.maxWeightsByteCount = min(limits.maxWeightsByteCount, bound)
        }
        return try registry.makeUpload(
            for: AdapterKey(name: name, tenant: tenant), byteCount: byteCount, limits: limits)
    }

    private var registry: AdapterRegistry { services.registry }

    func add(
        name: String, from upload: AdapterUpload, expecting: Precondition
    ) async throws(RegistryError) -> AddOutcome {
        do throws(RegistryError) {
            try checkAddition(name)
        } catch {
            await upload.discard()
            throw error
        }
        let before = try? registry.record(name: name, tenant: tenant)
        let outcome = try await registry.add(
            name: name, tenant: tenant, from: upload, expecting: expecting, allowance: allowance,
            actor: actor)
        follow(from: before, to: outcome.record)
        return outcome
    }

    func remove(
        name: String, expecting: Precondition
    ) async throws(RegistryError) -> AdapterRecord {
        try check(name)
        let record = try await registry.remove(
            name: name, tenant: tenant, expecting: expecting, actor: actor)
        follow(from: record, to: nil)
        return record
    }

    func rollBack(
        name: String, to version: String?, expecting: Precondition
    ) async throws(RegistryError) -> AdapterRecord {
        try check(name)
        let before = try? registry.record(name: name, tenant: tenant)
        let record = try await registry.rollback(
            name: name, tenant: tenant, to: version, expecting: expecting, actor: actor)
        follow(from: before, to: record)
        return record
    }

    func setAlias(
        _ name: String, to target: String, expecting: Precondition
    ) async throws(RegistryError) -> (alias: AdapterAlias, created: Bool) {
        try checkAlias(name)
        // An alias in a key's list would else open any adapter to it.
        try check(String(target.prefix { $0 != "@" }))
        return try await registry.setAlias(
            name: name, tenant: tenant, to: target, expecting: expecting, actor: actor)
    }

    func removeAlias(
        _ name: String, expecting: Precondition
    ) async throws(RegistryError) -> AdapterAlias {
        try checkAlias(name)
        return try await registry.removeAlias(
            name: name, tenant: tenant, expecting: expecting, actor: actor)
    }

    enum Switch: String, CaseIterable {
        case pin, unpin, disable, enable
    }

    func apply(_ change: Switch, name: String) async throws(RegistryError) -> AdapterRecord {
        try check(name)
        let record =
            switch change {
            case .pin:
                try await registry.pin(
                    name: name, tenant: tenant, allowance: allowance, actor: actor)
            case .unpin: try await registry.unpin(name: name, tenant: tenant, actor: actor)
            case .disable: try await registry.disable(name: name, tenant: tenant, actor: actor)
            case .enable: try await registry.enable(name: name, tenant: tenant, actor: actor)
            }
        switch change {
        case .disable: letGo(of: record)
        default: follow(from: nil, to: record)
        }
        return record
    }

    private func id(of record: AdapterRecord) -> LorryEngine.AdapterVersionID {
        LorryEngine.AdapterVersionID(record.version.digest)
    }

    private func follow(from before: AdapterRecord?, to after: AdapterRecord?) {
        if let before, before.version != after?.version { letGo(of: before) }
        guard let after else { return }
        if after.pinned, after.state == .ready {
            let reference = "\(after.name)@\(after.version.digest)"
            // Where a change that came since has removed it, there is nothing to bring in.
            guard let lease = try? registry.acquire(reference, tenant: tenant) else { return }
            services.engine.preload(services.reference(to: lease))
        }
        services.engine.setPinned(id(of: after), after.pinned || isPinnedElsewhere(after))
    }

    /// A name has left this version. Other names with the same content may still lead to it.
    private func letGo(of record: AdapterRecord) {
        let others = otherNames(for: record)
        if !others.contains(where: \.pinned) { services.engine.setPinned(id(of: record), false) }
        if others.isEmpty { services.engine.forget(id(of: record)) }
    }

    private func isPinnedElsewhere(_ record: AdapterRecord) -> Bool {
        otherNames(for: record).contains(where: \.pinned)
    }

    /// Names of any tenant, besides the record's own, under which its version can be served.
    private func otherNames(for record: AdapterRecord) -> [AdapterRecord] {
        var query = ListQuery()
        query.state = .ready
        query.limit = Int.max
        return registry.list(query).adapters.filter {
            $0.version == record.version && ($0.name != record.name || $0.tenant != record.tenant)
        }
    }
}
