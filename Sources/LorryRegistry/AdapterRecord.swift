import Foundation
import LorryModel

/// Names an immutable adapter version by the SHA-256 of its canonical content, 64 hex digits;
/// coded as that string.
public struct AdapterVersionID: Hashable, Sendable, Codable, CustomStringConvertible {
    public let digest: String

    /// - Throws: `RegistryError` of kind `invalid` if it is not 64 lower-case hex digits.
    public init(_ digest: String) throws(RegistryError) {
        guard digest.utf8.count == 64, digest.utf8.allSatisfy(isHexDigit) else {
            throw RegistryError(.invalid, "\(quoted(digest)) is not a version's digest")
        }
        self.digest = digest
    }

    init(checked digest: String) { self.digest = digest }

    public init(from decoder: any Decoder) throws {
        try self.init(decoder.singleValueContainer().decode(String.self))
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(digest)
    }

    public var description: String { digest }
}

/// What an adapter's name stands for right now.
public enum AdapterState: String, Sendable, Codable, CaseIterable {
    case ready
    /// Ready and in memory. The registry never says so: whoever knows the engine does.
    case resident
    case disabled
    /// Files of the current version are missing or altered; it is not served.
    case damaged
    /// Registered under another base model, which the current version fits; it is not served.
    case incompatible
}

/// An adapter as the admin API shows it: a name and its current version.
public struct AdapterRecord: Sendable, Codable, Equatable {
    public let name: String
    public let version: AdapterVersionID
    public let method: String
    public let rank: Int
    public let targets: [String]
    /// Bytes in memory once resident, with weights held as they were at registration.
    public let byteCount: Int
    public let parameterCount: Int
    public let traits: AdapterTraits
    /// Bytes of its files in the store.
    public let storedByteCount: Int
    public let tenant: String
    /// When this version was first registered under this name.
    public let created: Date
    public var state: AdapterState
    public let pinned: Bool
    /// Other names for it, sorted.
    public let aliases: [String]

    public var key: AdapterKey { AdapterKey(name: name, tenant: tenant) }
}

/// One version that a name stands for or stood for.
public struct AdapterVersion: Sendable, Codable, Equatable {
    public let version: AdapterVersionID
    public let method: String
    public let rank: Int
    public let targets: [String]
    public let byteCount: Int
    public let storedByteCount: Int
    /// When it was first registered under this name.
    public let created: Date
    public let current: Bool
    public let damaged: Bool
}

/// A file of a stored version with the checksums of its bytes.
public struct StoredFile: Sendable, Codable, Equatable {
    public let name: String
    public let byteCount: Int
    public let sha256: String
    /// For the check at each load; nil for what older versions of Lorry stored.
    public let checksum: ContentChecksum?

    package init(
        name: String, byteCount: Int, sha256: String, checksum: ContentChecksum? = nil
    ) {
        self.name = name
        self.byteCount = byteCount
        self.sha256 = sha256
        self.checksum = checksum
    }
}

/// A row of `versions`.
package struct StoredVersion: Sendable, Equatable {
    package let id: AdapterVersionID
    package let description: AdapterDescription
    package let files: [StoredFile]
    package let created: Date

    /// Nil where an older version of Lorry stored the files.
    var checksums: AdapterChecksums? {
        func checksum(_ name: String) -> ContentChecksum? {
            files.first { $0.name == name }?.checksum
        }
        guard let configuration = checksum(AdapterFile.configuration),
            let weights = AdapterFile.weights.lazy.compactMap(checksum).first
        else { return nil }
        return AdapterChecksums(configuration: configuration, weights: weights)
    }

    var storedByteCount: Int { files.reduce(0) { $0 + $1.byteCount } }
}

/// One entry of the append-only audit log.
public struct RegistryEvent: Sendable, Codable, Equatable {
    public enum Action: String, Sendable, Codable, CaseIterable {
        case add, remove, pin, unpin, disable, enable, rollback, damage, alias, unalias, backup
        /// The file of API keys was read again; concerns no adapter.
        case keys
        /// The adapters of a tenant's requests that name none were set; concerns no one adapter.
        case scales
    }

    /// Rises by one per event, without gaps; a reader of the live stream sees by it that it missed some.
    public let id: Int64
    public let time: Date
    public let actor: String
    public let tenant: String
    public let action: Action
    public let name: String
    public let version: AdapterVersionID?
    public let detail: String
}

/// `If-Match` and `If-None-Match` (RFC 9110 §13.1). An adapter's entity tag is its version's digest,
/// an alias' is what it stands for.
public struct Precondition: Sendable, Equatable {
    public enum Tags: Sendable, Equatable {
        /// `*`
        case any
        case tags(Set<String>)

        public func contains(_ tag: String) -> Bool {
            switch self {
            case .any: true
            case .tags(let tags): tags.contains(tag)
            }
        }
    }

    public static let none = Precondition()

    public var ifMatch: Tags?
    public var ifNoneMatch: Tags?

    public init(ifMatch: Tags? = nil, ifNoneMatch: Tags? = nil) {
        self.ifMatch = ifMatch
        self.ifNoneMatch = ifNoneMatch
    }

    func check(_ current: AdapterVersionID?, of key: AdapterKey) throws(RegistryError) {
        let found = current.map { "its version is \($0.digest)" } ?? "there is no such adapter"
        try check(current?.digest, of: key, found: found)
    }

    /// - Parameters:
    ///   - tag: what is there now; nil for nothing.
    ///   - found: says so in the error's message.
    func check(_ tag: String?, of key: AdapterKey, found: String) throws(RegistryError) {
        if let ifMatch, !(tag.map(ifMatch.contains) ?? false) {
            throw RegistryError(.preconditionFailed, "If-Match does not hold for \(key): \(found)")
        }
        if let ifNoneMatch, let tag, ifNoneMatch.contains(tag) {
            throw RegistryError(
                .preconditionFailed, "If-None-Match does not hold for \(key): \(found)")
        }
    }
}
