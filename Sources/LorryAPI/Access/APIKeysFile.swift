import Foundation
import LorryRegistry
import Yams

/// Reading the YAML file of keys and tenants. Each message names the entry and the field at fault.
extension APIKeys {
    /// Reads a YAML document: a list of keys, or a mapping with the list under `keys` and, if
    /// wanted, limits by tenant under `tenants`.
    ///
    /// - Throws: `FileError` naming the entry and the field at fault.
    public init(yaml: String) throws(FileError) {
        let document: Any?
        do {
            document = try Yams.load(yaml: yaml)
        } catch {
            throw FileError("the API keys file is not valid YAML: \(error)")
        }
        let top = document as? [String: Any]
        guard let list = (top?["keys"] ?? document) as? [Any] else {
            throw FileError("the API keys file must be a list of keys")
        }
        let known: Set = ["keys", "tenants"]
        if let unknown = top?.keys.filter({ !known.contains($0) }).min() {
            throw FileError(
                "the API keys file has the unknown entry '\(unknown)' beside keys and tenants")
        }
        guard !list.isEmpty else {
            throw FileError("the API keys file names no key: nobody could use it")
        }
        let tenants = try Self.tenants(top?["tenants"])
        var entries: [Entry] = []
        for (position, element) in list.enumerated() {
            let name = "key \(position + 1)"
            let fields = try KeyFileFields(element, "\(name) of the API keys file")
            let entry = try Self.entry(fields, tenants)
            let digest = entry.principal.keyDigest
            guard !entries.contains(where: { $0.principal.keyDigest == digest }) else {
                throw FileError("\(name) repeats an earlier key")
            }
            guard !entries.contains(where: { $0.principal.keyID == entry.principal.keyID }) else {
                throw fields.fail("'id' \(entry.principal.keyID) is an earlier key's")
            }
            entries.append(entry)
        }
        self.entries = entries
        let used = Set(entries.map(\.principal.tenant))
        unusedTenants = tenants.keys.filter { !used.contains($0) }.sorted()
    }

    private static func tenants(_ value: Any?) throws(FileError) -> [String: TenantLimits] {
        guard let value else { return [:] }
        guard let members = value as? [String: Any] else {
            throw FileError("'tenants' of the API keys file must map names to limits")
        }
        var tenants: [String: TenantLimits] = [:]
        for (name, element) in members.sorted(by: { $0.key < $1.key }) {
            let fields = try KeyFileFields(element, "tenant '\(name)' of the API keys file")
            let own = [
                "tokens_per_day", "tokens_per_month", "max_adapters", "max_adapter_bytes",
                "max_pinned",
            ]
            try fields.allow(KeyFileFields.sharedLimits + own)
            var limits = TenantLimits()
            limits.shared = try fields.limits()
            limits.tokensPerDay = try fields.positive("tokens_per_day")
            limits.tokensPerMonth = try fields.positive("tokens_per_month")
            limits.adapters.adapterCount = try fields.count("max_adapters", from: 0)
            limits.adapters.storedByteCount = try fields.count("max_adapter_bytes", from: 0)
            limits.adapters.pinnedCount = try fields.count("max_pinned", from: 0)
            tenants[name] = limits
        }
        return tenants
    }

    private static func entry(
        _ fields: KeyFileFields, _ tenants: [String: TenantLimits]
    ) throws(FileError) -> Entry {
        try fields.allow([
            "key", "key_sha256", "id", "tenant", "roles", "adapters", "weight", "expires", "limits",
        ])
        let digest = try fields.keyDigest()
        guard let tenant = fields["tenant"] as? String, !tenant.isEmpty else {
            throw fields.fail("'tenant' must be a name")
        }
        var adapters: Set<String>?
        if let value = fields["adapters"] {
            guard let list = value as? [String] else {
                throw fields.fail("'adapters' must list names")
            }
            adapters = Set(list)
        }
        var limits = KeyLimits()
        if let value = fields["limits"] {
            guard value is [String: Any] else { throw fields.fail("'limits' must be a mapping") }
            let members = try KeyFileFields(value, fields.place, prefix: "limits.")
            try members.allow(KeyFileFields.sharedLimits)
            limits = try members.limits()
        }
        var principal = Principal(
            tenant: tenant, keyID: try fields.keyID(digest), roles: try fields.roles(),
            allowedAdapters: adapters, limits: limits,
            tenantLimits: tenants[tenant] ?? TenantLimits(), weight: try fields.weight(),
            expires: try fields.time("expires"))
        principal.keyDigest = digest
        return Entry(principal: principal, isPlain: fields["key"] != nil)
    }
}

/// The members of one entry of the keys file.
private struct KeyFileFields {
    /// Limits that a key and a tenant may both have.
    static let sharedLimits = [
        "max_concurrent", "max_tokens", "requests_per_minute", "tokens_per_minute",
    ]

    /// Which entry it is, for messages.
    let place: String
    private let prefix: String
    private let members: [String: Any]

    init(_ element: Any, _ place: String, prefix: String = "") throws(APIKeys.FileError) {
        self.place = place
        self.prefix = prefix
        guard let members = element as? [String: Any] else {
            throw APIKeys.FileError("\(place): must be a mapping")
        }
        self.members = members
    }

    subscript(name: String) -> Any? { members[name] }

    func fail(_ reason: String) -> APIKeys.FileError {
        APIKeys.FileError("\(place): \(reason)")
    }

    func allow(_ names: [String]) throws(APIKeys.FileError) {
        guard let unknown = members.keys.filter({ !names.contains($0) }).min() else { return }
        throw fail("unknown field '\(prefix)\(unknown)'")
    }

    func count(_ name: String, from least: Int) throws(APIKeys.FileError) -> Int? {
        guard let value = members[name] else { return nil }
        // Far above all use, and exact as a floating-point number.
        let most = 1_000_000_000_000_000
        guard let number = value as? Int, (least...most).contains(number) else {
            throw fail("'\(prefix)\(name)' must be a whole number from \(least) to \(most)")
        }
        return number
    }

    func positive(_ name: String) throws(APIKeys.FileError) -> Int? { try count(name, from: 1) }

    func limits() throws(APIKeys.FileError) -> KeyLimits {
        var limits = KeyLimits()
        limits.maximumConcurrentSequences = try positive("max_concurrent")
        limits.maximumTokenCount = try positive("max_tokens")
        limits.requestsPerMinute = try positive("requests_per_minute")
        limits.tokensPerMinute = try positive("tokens_per_minute")
        return limits
    }

    func keyDigest() throws(APIKeys.FileError) -> [UInt8] {
        switch (members["key"], members["key_sha256"]) {
        case (let key as String, nil):
            guard key.utf8.count >= 8 else { throw fail("'key' must have at least 8 bytes") }
            return APIKeys.bytes(digesting: key)
        case (nil, let text as String):
            guard let bytes = Self.bytes(hexadecimal: text), bytes.count == 32 else {
                throw fail("'key_sha256' must have 64 hexadecimal digits")
            }
            return bytes
        default: throw fail("needs exactly one of 'key' and 'key_sha256', as a quoted string")
        }
    }

    /// The public name; where none is given, the first 8 digits of the digest, which tell nothing
    /// of a key that was not made up by a person.
    func keyID(_ digest: [UInt8]) throws(APIKeys.FileError) -> String {
        guard let value = members["id"] else { return APIKeys.hexadecimal(digest.prefix(4)) }
        guard let id = value as? String, (try? AdapterName.check(id)) != nil else {
            throw fail(
                "'id' must be a quoted string of 1 to 128 letters, digits, '.', '_' and '-' that "
                    + "does not start with '.' or '-'")
        }
        return id
    }

    func roles() throws(APIKeys.FileError) -> Set<Role> {
        guard let names = members["roles"] as? [String], !names.isEmpty else {
            throw fail("'roles' must list at least one of inference, admin, metrics")
        }
        var roles: Set<Role> = []
        for name in names {
            guard let role = Role(rawValue: name) else { throw fail("unknown role '\(name)'") }
            roles.insert(role)
        }
        return roles
    }

    func weight() throws(APIKeys.FileError) -> Double {
        guard let value = members["weight"] else { return 1 }
        guard let weight = value as? Double ?? (value as? Int).map({ Double($0) }),
            (0.01...100).contains(weight)
        else { throw fail("'weight' must be a number from 0.01 to 100") }
        return weight
    }

    /// RFC 3339; YAML reads one without quotes as a time of its own.
    func time(_ name: String) throws(APIKeys.FileError) -> Date? {
        guard let value = members[name] else { return nil }
        if let date = value as? Date { return date }
        if let text = value as? String {
            for fraction in [false, true] {
                let style = Date.ISO8601FormatStyle(includingFractionalSeconds: fraction)
                if let date = try? Date(text, strategy: style) { return date }
            }
        }
        throw fail("'\(name)' must be a time such as 2027-01-31T00:00:00Z")
    }

    private static func bytes(hexadecimal text: String) -> [UInt8]? {
        let digits = text.utf8.map { Character(UnicodeScalar($0)).hexDigitValue }
        guard digits.count.isMultiple(of: 2), !digits.contains(nil) else { return nil }
        let values = digits.compactMap { $0 }
        return stride(from: 0, to: values.count, by: 2).map {
            UInt8(values[$0] << 4 | values[$0 + 1])
        }
    }
}
