/// What a key may do. A route names the one role that it asks for.
public enum Role: String, Sendable, CaseIterable {
    /// Completions, models, tokenizing.
    case inference
    /// Uploading and changing adapters, and the audit log.
    case admin
    /// `GET /metrics`.
    case metrics
}

/// On whose behalf a request runs.
public struct Principal: Sendable {
    /// Who is charged, and by whom scheduling and metrics are grouped.
    public let tenant: String
    public let roles: Set<Role>
    /// Nil allows every adapter. The base model is always allowed.
    public let allowedAdapters: Set<String>?
    public let limits: KeyLimits
    /// The share of the engine that the key's requests get, relative to those of other tenants.
    public var weight = 1.0

    /// Without a keys file everyone may do everything.
    public static let everyone = Principal(
        tenant: "default", roles: Set(Role.allCases), allowedAdapters: nil, limits: KeyLimits())

    func mayUse(adapter name: String) -> Bool { allowedAdapters?.contains(name) ?? true }

    /// Whether a key may use an adapter by one of its aliases: either name may be in its list.
    func mayUse(adapter name: String, as alias: String) -> Bool {
        mayUse(adapter: name) || mayUse(adapter: alias)
    }
}

/// Bounds of one key. Nil leaves the server's own bound.
public struct KeyLimits: Sendable, Equatable {
    /// Sequences of the key that may wait or run at one time.
    public var maximumConcurrentSequences: Int?
    /// Upper bound on `max_tokens` of one request.
    public var maximumTokenCount: Int?

    public init() {}
}
