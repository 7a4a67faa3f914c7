import Foundation

/// Changes. Each is on disk when its call returns; `actor` is who the audit log will name.
extension AdapterRegistry {
    /// What an upload is held to where nothing else is said.
    public var uploadLimits: UploadLimits { core.configuration.limits }

    /// Opens an upload; feed it, then `add` it.
    /// - Parameters:
    ///   - key: what it is for; shown while it is under way.
    ///   - byteCount: what it will bring, where that is known.
    /// - Throws: `busy` if too many are open, `storage` if the disk fails.
    public func makeUpload(
        for key: AdapterKey? = nil, byteCount: Int? = nil, limits: UploadLimits? = nil
    ) throws(RegistryError) -> AdapterUpload {
        let slot = try UploadSlot(core, for: key, byteCount: byteCount)
        do {
            return try AdapterUpload(
                path: core.state.newStagingPath(), files: core.files,
                limits: limits ?? core.configuration.limits, slot: slot)
        } catch {
            throw RegistryError.wrapping(error)
        }
    }

    /// Checks an upload whole and makes it the current version of a name, at once or not at all.
    ///
    /// A disabled or pinned name stays so. The upload is over afterwards, also after an error.
    /// - Throws: `invalid`, `unsupported`, `tooLarge` for the content or name;
    ///   `preconditionFailed`; `overAllowance` where the tenant would have more than that; `storage`.
    public func add(
        name: String, tenant: String = AdapterKey.sharedTenant, from upload: AdapterUpload,
        expecting: Precondition = .none, allowance: TenantAllowance = .unlimited, actor: String
    ) async throws(RegistryError) -> AddOutcome {
        let key = AdapterKey(name: name, tenant: tenant)
        do throws(RegistryError) {
            try checkNew(key)
            try checkRoom(name: name, tenant: tenant, allowance: allowance)
            // Asked again at the commit; here it saves the inspection of what cannot pass.
            try expecting.check(core.withContents { $0.names[key]?.current.version }, of: key)
            let staged = try await upload.seal(inspect: core.inspect)
            let outcomes = try await writer.add([
                Addition(
                    key: key, staged: staged, expecting: expecting, allowance: allowance,
                    actor: actor)
            ])
            await upload.markSpent()
            guard let outcome = outcomes.first else { throw .noAdapter(key) }
            return outcome
        } catch {
            await upload.discard()
            throw error
        }
    }

    /// Forgets a name with its history. Versions that no other name has lose their files as soon
    /// as no lease holds them.
    /// - Returns: the record as it was.
    @discardableResult
    public func remove(
        name: String, tenant: String = AdapterKey.sharedTenant, expecting: Precondition = .none,
        actor: String
    ) async throws(RegistryError) -> AdapterRecord {
        try await writer.remove(
            AdapterKey(name: name, tenant: tenant), expecting: expecting, actor: actor)
    }

    /// Makes an earlier version current. The one left stays in the history, so that repeating it
    /// returns there.
    /// - Parameter version: at least eight hex digits of a version in the history; nil for the one
    ///   that was served before the current one.
    /// - Throws: `notFound`, `conflict` if there is nothing to go back to, `damaged`,
    ///   `preconditionFailed`, `storage`.
    @discardableResult
    public func rollback(
        name: String, tenant: String = AdapterKey.sharedTenant, to version: String? = nil,
        expecting: Precondition = .none, actor: String
    ) async throws(RegistryError) -> AdapterRecord {
        try await writer.rollBack(
            AdapterKey(name: name, tenant: tenant), to: version, expecting: expecting, actor: actor)
    }

    /// Asks that the adapter stay in memory.
    /// - Throws: `notFound`; `overAllowance` where the tenant would have more pinned than that;
    ///   `storage`.
    @discardableResult
    public func pin(
        name: String, tenant: String = AdapterKey.sharedTenant,
        allowance: TenantAllowance = .unlimited, actor: String
    ) async throws(RegistryError) -> AdapterRecord {
        try await writer.update(
            AdapterKey(name: name, tenant: tenant), action: .pin, allowance: allowance,
            actor: actor
        ) { $0.isPinned = true }
    }

    @discardableResult
    public func unpin(
        name: String, tenant: String = AdapterKey.sharedTenant, actor: String
    ) async throws(RegistryError) -> AdapterRecord {
        try await writer.update(
            AdapterKey(name: name, tenant: tenant), action: .unpin, actor: actor
        ) { $0.isPinned = false }
    }

    /// New requests for it are refused from now on; leases that exist stay.
    @discardableResult
    public func disable(
        name: String, tenant: String = AdapterKey.sharedTenant, actor: String
    ) async throws(RegistryError) -> AdapterRecord {
        try await writer.update(
            AdapterKey(name: name, tenant: tenant), action: .disable, actor: actor
        ) { $0.isDisabled = true }
    }

    @discardableResult
    public func enable(
        name: String, tenant: String = AdapterKey.sharedTenant, actor: String
    ) async throws(RegistryError) -> AdapterRecord {
        try await writer.update(
            AdapterKey(name: name, tenant: tenant), action: .enable, actor: actor
        ) { $0.isDisabled = false }
    }

    /// Notes in the audit log what was done to the server rather than to an adapter.
    public func note(
        _ action: RegistryEvent.Action, detail: String,
        tenant: String = AdapterKey.sharedTenant, actor: String
    ) async throws(RegistryError) {
        try await writer.note(.init(actor: actor, action: action, detail: detail), tenant: tenant)
    }

    /// What a new adapter's name must be.
    func checkNew(_ key: AdapterKey) throws(RegistryError) {
        try checkName(key)
        try core.checkNoAlias(key)
    }

    /// What any name must be.
    func checkName(_ key: AdapterKey) throws(RegistryError) {
        try AdapterName.check(key.name)
        try AdapterName.check(key.tenant, as: "tenant")
        guard !core.isReserved(key.name) else {
            throw RegistryError(.conflict, "the name \(quoted(key.name)) is the base model's")
        }
    }
}
