import Crypto
import Foundation

/// The keys that clients authenticate with; only their SHA-256 digests are kept in memory.
public struct APIKeys: Sendable {
    struct Entry: Sendable, Equatable {
        let principal: Principal
        /// The file holds the key itself rather than its digest.
        let isPlain: Bool
    }

    let entries: [Entry]
    /// Tenants with limits of which the file has no key.
    public let unusedTenants: [String]

    public struct FileError: Error, CustomStringConvertible, Sendable, Equatable {
        public let description: String
        init(_ description: String) { self.description = description }
    }

    /// How many tenants may ask for completions.
    public var tenantCount: Int {
        let principals = entries.map(\.principal).filter { $0.roles.contains(.inference) }
        return Set(principals.map(\.tenant)).count
    }

    /// The ids of keys that the file holds in plain text.
    public var plainKeyIDs: [String] { entries.filter(\.isPlain).map(\.principal.keyID) }

    /// The SHA-256 digest of a key, as `key_sha256` takes it.
    public static func digest(of key: String) -> String {
        hexadecimal(bytes(digesting: key))
    }

    /// A key that nobody can guess: 256 random bits behind a prefix by which scanners of source code
    /// find it.
    public static func randomKey() -> String {
        let bytes = SymmetricKey(size: .bits256).withUnsafeBytes { Data($0) }
        let text = bytes.base64EncodedString().replacing("+", with: "-").replacing("/", with: "_")
        return "lorry_" + text.filter { $0 != "=" }
    }

    /// Nil for an unknown key. Every stored digest is compared in full, so that the time taken
    /// tells nothing about them.
    func entry(for key: String) -> Entry? {
        let digest = Self.bytes(digesting: key)
        var found: Entry?
        for entry in entries {
            var difference: UInt8 = 0
            for (a, b) in zip(entry.principal.keyDigest, digest) { difference |= a ^ b }
            if difference == 0 { found = entry }
        }
        return found
    }

    static func bytes(digesting key: String) -> [UInt8] {
        Array(SHA256.hash(data: Data(key.utf8)))
    }

    static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

/// How a file of keys differs from the one before, by the public ids of the keys.
public struct KeyChanges: Sendable, Equatable, CustomStringConvertible {
    public let added: [String]
    public let removed: [String]
    /// Another secret, tenant, role, limit or the like.
    public let changed: [String]

    init(from old: APIKeys, to new: APIKeys) {
        func byID(_ keys: APIKeys) -> [String: APIKeys.Entry] {
            Dictionary(keys.entries.map { ($0.principal.keyID, $0) }) { first, _ in first }
        }
        let (before, after) = (byID(old), byID(new))
        added = after.keys.filter { before[$0] == nil }.sorted()
        removed = before.keys.filter { after[$0] == nil }.sorted()
        changed = after.keys.filter { id in before[id].map { $0 != after[id] } ?? false }.sorted()
    }

    public var description: String {
        let parts = [("added", added), ("removed", removed), ("changed", changed)]
            .filter { !$0.1.isEmpty }.map { "\($0.0): \($0.1.joined(separator: ", "))" }
        return parts.isEmpty ? "no key differs" : parts.joined(separator: "; ")
    }
}
