import Foundation
import LorryRegistry

/// What a key may do. A route names the one role that it asks for.
public enum Role: String, Sendable, CaseIterable {
    /// Completions, models, tokenizing.
    case inference
    /// Uploading and changing adapters, the audit log and usage.
    case admin
    /// `GET /metrics`.
    case metrics
}

/// On whose behalf a request runs.
public struct Principal: Sendable, Equatable {
    /// Who is charged, and by whom scheduling and metrics are grouped.
    public let tenant: String
    /// The key's public name, for the audit log and usage.
    public let keyID: String
    public let roles: Set<Role>
    /// Nil allows every adapter. The base model is always allowed.
    public let allowedAdapters: Set<String>?
    /// Of the key alone.
    public let limits: KeyLimits
    /// Of all keys of the tenant together.
    public let tenantLimits: TenantLimits
    /// The share of the engine that the key's requests get, relative to those of other tenants.
    public let weight: Double
    /// From then on the key is refused; nil: never.
    public let expires: Date?
    /// Tells a key from another that has its id later; empty where there are no keys.
    var keyDigest: [UInt8] = []

    public init(
        tenant: String, keyID: String, roles: Set<Role>, allowedAdapters: Set<String>? = nil,
        limits: KeyLimits = KeyLimits(), tenantLimits: TenantLimits = TenantLimits(),
        weight: Double = 1, expires: Date? = nil
    ) {
        self.tenant = tenant
        self.keyID = keyID
        self.roles = roles
        self.allowedAdapters = allowedAdapters
        self.limits = limits
        self.tenantLimits = tenantLimits
        self.weight = weight
        self.expires = expires
    }

    /// Without a keys file everyone may do everything.
    public static let everyone = Principal(
        tenant: AdapterKey.sharedTenant, keyID: "anonymous", roles: Set(Role.allCases))

    /// Who calls a route that asks for no key: may do nothing else.
    static let nobody = Principal(tenant: "", keyID: "", roles: [], allowedAdapters: [])

    /// Whom the audit log names.
    var actor: String { "\(tenant)/\(keyID)" }

    func mayUse(adapter name: String) -> Bool { allowedAdapters?.contains(name) ?? true }

    /// Upper bound on `max_tokens` of one request; nil for none.
    var maximumTokenCount: Int? {
        [limits.maximumTokenCount, tenantLimits.shared.maximumTokenCount].compactMap { $0 }.min()
    }

    /// Whether a key may use an adapter by one of its aliases: either name may be in its list.
    func mayUse(adapter name: String, as alias: String) -> Bool {
        mayUse(adapter: name) || mayUse(adapter: alias)
    }
}

/// Bounds on requests, of one key or of a tenant's keys together. Nil leaves the server's own bound.
public struct KeyLimits: Sendable, Equatable {
    /// Sequences that may wait or run at one time.
    public var maximumConcurrentSequences: Int?
    /// Upper bound on `max_tokens` of one request.
    public var maximumTokenCount: Int?
    /// Generation requests; as many may come at once after a minute without any.
    public var requestsPerMinute: Int?
    /// Tokens of prompts and answers, likewise.
    public var tokensPerMinute: Int?

    public init() {}
}

/// Bounds on all keys of a tenant together.
public struct TenantLimits: Sendable, Equatable {
    public var shared = KeyLimits()
    /// Tokens of prompts and answers in a day of UTC.
    public var tokensPerDay: Int?
    /// Tokens of prompts and answers in a calendar month of UTC.
    public var tokensPerMonth: Int?
    public var adapters = TenantAllowance.unlimited

    public init() {}
}
