/// How much a tenant may keep in the registry; nil: any.
public struct TenantAllowance: Sendable, Equatable {
    public static let unlimited = TenantAllowance()

    /// Names of adapters.
    public var adapterCount: Int?
    /// Bytes of stored files: each distinct version in the histories of its names once.
    public var storedByteCount: Int?
    /// Names of adapters that are pinned.
    public var pinnedCount: Int?

    public init(
        adapterCount: Int? = nil, storedByteCount: Int? = nil, pinnedCount: Int? = nil
    ) {
        self.adapterCount = adapterCount
        self.storedByteCount = storedByteCount
        self.pinnedCount = pinnedCount
    }
}

/// What a tenant keeps in the registry.
struct TenantHoldings: Sendable {
    private struct Held {
        /// How many of the tenant's names have the version in their history.
        var nameCount: Int
        /// As it was when the first of them got it, so that what is added is what is subtracted.
        let byteCount: Int
    }

    private(set) var adapterCount = 0
    private(set) var storedByteCount = 0
    private(set) var pinnedCount = 0
    private var held: [AdapterVersionID: Held] = [:]

    /// Takes one name's change over.
    /// - Parameter byteCount: of a version's stored files.
    mutating func replace(
        _ before: NameEntry?, with after: NameEntry?, byteCount: (AdapterVersionID) -> Int
    ) {
        adapterCount += (after == nil ? 0 : 1) - (before == nil ? 0 : 1)
        pinnedCount += (after?.isPinned == true ? 1 : 0) - (before?.isPinned == true ? 1 : 0)
        for past in after?.history ?? [] {
            if held[past.version] == nil {
                let size = byteCount(past.version)
                held[past.version] = Held(nameCount: 0, byteCount: size)
                storedByteCount += size
            }
            held[past.version]?.nameCount += 1
        }
        for past in before?.history ?? [] {
            guard let known = held[past.version] else { continue }
            guard known.nameCount == 1 else {
                held[past.version]?.nameCount -= 1
                continue
            }
            storedByteCount -= known.byteCount
            held[past.version] = nil
        }
    }

    /// Whether a tenant with these holdings may have one name more.
    func checkNewName(
        _ key: AdapterKey, _ allowance: TenantAllowance
    ) throws(RegistryError) {
        guard let limit = allowance.adapterCount, adapterCount >= limit else { return }
        throw RegistryError(
            .overAllowance,
            "tenant \(quoted(key.tenant)) may have \(limit) adapters and has \(adapterCount): "
                + "there is no room for \(quoted(key.name))")
    }

    /// Whether a tenant with these holdings may pin one name more.
    func checkNewPin(_ key: AdapterKey, _ allowance: TenantAllowance) throws(RegistryError) {
        guard let limit = allowance.pinnedCount, pinnedCount >= limit else { return }
        throw RegistryError(
            .overAllowance,
            "tenant \(quoted(key.tenant)) may pin \(limit) adapters and has pinned \(pinnedCount): "
                + "\(quoted(key.name)) would be one too many")
    }

    /// Whether these holdings may become what a change makes of them. A change that adds nothing
    /// may always be made, also where the allowance has shrunk since.
    ///
    /// - Throws: `overAllowance` with the numbers.
    func check(
        _ before: NameEntry?, with after: NameEntry, byteCount: (AdapterVersionID) -> Int,
        _ allowance: TenantAllowance
    ) throws(RegistryError) {
        if before == nil { try checkNewName(after.key, allowance) }
        guard let limit = allowance.storedByteCount else { return }
        var next = self
        next.replace(before, with: after, byteCount: byteCount)
        guard next.storedByteCount > max(limit, storedByteCount) else { return }
        throw RegistryError(
            .overAllowance,
            "tenant \(quoted(after.key.tenant)) may store \(limit) bytes of adapters and stores "
                + "\(storedByteCount): \(quoted(after.key.name)) would make it "
                + "\(next.storedByteCount)")
    }
}

extension AdapterRegistry {
    /// Names of a tenant, and the bytes of the distinct versions in their histories.
    public func holdings(of tenant: String) -> (adapterCount: Int, storedByteCount: Int) {
        let holdings = core.withContents { $0.holdings[tenant] } ?? TenantHoldings()
        return (holdings.adapterCount, holdings.storedByteCount)
    }

    /// Says before any byte is read what `add` would say in the end: that the name is one too many.
    /// - Throws: `overAllowance`; `invalid` or `conflict` where no adapter may have the name.
    public func checkRoom(
        name: String, tenant: String, allowance: TenantAllowance
    ) throws(RegistryError) {
        let key = AdapterKey(name: name, tenant: tenant)
        let (isKnown, holdings) = core.withContents { ($0.names[key] != nil, $0.holdings[tenant]) }
        guard !isKnown else { return }
        try checkNew(key)
        try (holdings ?? TenantHoldings()).checkNewName(key, allowance)
    }

    /// Says before an adapter is added what `pin` would say then.
    /// - Throws: `overAllowance` where the name is not pinned and would be one too many.
    public func checkPinRoom(
        name: String, tenant: String, allowance: TenantAllowance
    ) throws(RegistryError) {
        let key = AdapterKey(name: name, tenant: tenant)
        let (entry, holdings) = core.withContents { ($0.names[key], $0.holdings[tenant]) }
        guard entry?.isPinned != true else { return }
        try (holdings ?? TenantHoldings()).checkNewPin(key, allowance)
    }
}
