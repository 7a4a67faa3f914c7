import Crypto
import Foundation
import Yams

/// The keys that clients authenticate with; only their SHA-256 digests are kept in memory.
public struct APIKeys: Sendable {
    private struct Entry: Sendable {
        let digest: [UInt8]
        let principal: Principal
    }

    private let entries: [Entry]

    public struct FileError: Error, CustomStringConvertible, Sendable, Equatable {
        public let description: String
    }

    /// Reads a YAML document: a list of keys, or a mapping with the list under `keys`.
    ///
    /// Each key has `key` or `key_sha256` (64 hexadecimal digits), `tenant`, `roles`, and may have
    /// `adapters` (names; all where absent), `weight` (of its requests against those of other
    /// tenants; 1 where absent) and `limits` (`max_concurrent`, `max_tokens`).
    ///
    /// - Throws: `FileError` naming the entry and the field at fault.
    public init(yaml: String) throws(FileError) {
        let document: Any?
        do {
            document = try Yams.load(yaml: yaml)
        } catch {
            throw FileError(description: "the API keys file is not valid YAML: \(error)")
        }
        let list = (document as? [String: Any])?["keys"] ?? document
        guard let list = list as? [Any] else {
            throw FileError(description: "the API keys file must be a list of keys")
        }
        guard !list.isEmpty else {
            throw FileError(description: "the API keys file names no key: nobody could use it")
        }
        var entries: [Entry] = []
        for (position, element) in list.enumerated() {
            let entry = try Self.entry(element, position: position + 1)
            guard !entries.contains(where: { $0.digest == entry.digest }) else {
                throw FileError(description: "key \(position + 1) repeats an earlier key")
            }
            entries.append(entry)
        }
        self.entries = entries
    }

    /// How many tenants may ask for completions.
    public var tenantCount: Int {
        let principals = entries.map(\.principal).filter { $0.roles.contains(.inference) }
        return Set(principals.map(\.tenant)).count
    }

    /// Nil for an unknown key. Every stored digest is compared in full, so that the time taken
    /// tells nothing about them.
    func principal(for key: String) -> Principal? {
        let digest = Array(SHA256.hash(data: Data(key.utf8)))
        var found: Principal?
        for entry in entries {
            var difference: UInt8 = 0
            for (a, b) in zip(entry.digest, digest) { difference |= a ^ b }
            if difference == 0 { found = entry.principal }
        }
        return found
    }

    private static func entry(_ element: Any, position: Int) throws(FileError) -> Entry {
        func fail(_ reason: String) -> FileError {
            FileError(description: "key \(position) of the API keys file: \(reason)")
        }
        guard let fields = element as? [String: Any] else { throw fail("must be a mapping") }
        let known: Set = ["key", "key_sha256", "tenant", "roles", "adapters", "weight", "limits"]
        if let unknown = fields.keys.filter({ !known.contains($0) }).min() {
            throw fail("unknown field '\(unknown)'")
        }
        let digest: [UInt8]
        switch (fields["key"], fields["key_sha256"]) {
        case (let key as String, nil):
            guard key.utf8.count >= 8 else { throw fail("'key' must have at least 8 bytes") }
            digest = Array(SHA256.hash(data: Data(key.utf8)))
        case (nil, let text as String):
            guard let bytes = bytes(hexadecimal: text), bytes.count == SHA256.byteCount else {
                throw fail("'key_sha256' must have 64 hexadecimal digits")
            }
            digest = bytes
        default: throw fail("needs exactly one of 'key' and 'key_sha256', as a quoted string")
        }
        guard let tenant = fields["tenant"] as? String, !tenant.isEmpty else {
            throw fail("'tenant' must be a name")
        }
        guard let names = fields["roles"] as? [String], !names.isEmpty else {
            throw fail("'roles' must list at least one of inference, admin, metrics")
        }
        var roles: Set<Role> = []
        for name in names {
            guard let role = Role(rawValue: name) else { throw fail("unknown role '\(name)'") }
            roles.insert(role)
        }
        var adapters: Set<String>?
        if let value = fields["adapters"] {
            guard let list = value as? [String] else { throw fail("'adapters' must list names") }
            adapters = Set(list)
        }
        guard let limits = limits(fields["limits"]) else {
            throw fail("'limits' may have max_concurrent and max_tokens, each at least 1")
        }
        guard let weight = weight(fields["weight"]) else {
            throw fail("'weight' must be a number from 0.01 to 100")
        }
        return Entry(
            digest: digest,
            principal: Principal(
                tenant: tenant, roles: roles, allowedAdapters: adapters, limits: limits,
                weight: weight))
    }

    private static func weight(_ value: Any?) -> Double? {
        guard let value else { return 1 }
        guard let weight = value as? Double ?? (value as? Int).map({ Double($0) }),
            (0.01...100).contains(weight)
        else { return nil }
        return weight
    }

    private static func limits(_ value: Any?) -> KeyLimits? {
        var limits = KeyLimits()
        guard let value else { return limits }
        guard let fields = value as? [String: Any] else { return nil }
        for (name, value) in fields {
            guard let number = value as? Int, number >= 1 else { return nil }
            switch name {
            case "max_concurrent": limits.maximumConcurrentSequences = number
            case "max_tokens": limits.maximumTokenCount = number
            default: return nil
            }
        }
        return limits
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
