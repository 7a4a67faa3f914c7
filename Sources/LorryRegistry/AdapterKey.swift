/// An adapter's place in the registry: names are unique within a tenant.
public struct AdapterKey: Hashable, Sendable, Codable, Comparable, CustomStringConvertible {
    /// The tenant whose adapters every tenant may use.
    public static let sharedTenant = "default"

    public let tenant: String
    public let name: String

    public init(name: String, tenant: String = AdapterKey.sharedTenant) {
        self.name = name
        self.tenant = tenant
    }

    public static func < (left: AdapterKey, right: AdapterKey) -> Bool {
        left.name == right.name ? left.tenant < right.tenant : left.name < right.name
    }

    public var description: String {
        tenant == Self.sharedTenant ? "'\(name)'" : "'\(name)' of tenant '\(tenant)'"
    }
}

/// The rule for names of adapters and tenants.
public enum AdapterName {
    public static let maxCharacterCount = 128

    /// Accepts 1 to 128 of `A–Z a–z 0–9 . _ -`, not starting with `.` or `-`.
    ///
    /// `@` (version), `:` (base model) and `/` (paths) have a meaning in references, a leading
    /// `.` hides a file and a leading `-` looks like a flag.
    /// - Throws: `RegistryError` of kind `invalid` that quotes the name.
    public static func check(
        _ name: String, as what: String = "adapter name"
    ) throws(RegistryError) {
        let bytes = name.utf8
        guard let first = bytes.first else {
            throw RegistryError(.invalid, "the \(what) is empty")
        }
        guard bytes.count <= maxCharacterCount else {
            throw RegistryError(
                .invalid,
                "the \(what) \(quoted(name)) is longer than \(maxCharacterCount) characters")
        }
        guard bytes.allSatisfy(isAllowed), first != UInt8(ascii: "."), first != UInt8(ascii: "-")
        else {
            throw RegistryError(
                .invalid,
                "the \(what) \(quoted(name)) may hold only letters, digits, '.', '_' and '-', "
                    + "and may not start with '.' or '-'")
        }
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"),
            UInt8(ascii: "-"):
            true
        default: false
        }
    }
}

/// What a client may write for an adapter: `name`, or `name@version` with at least eight hex
/// digits of the version.
struct VersionedName: Equatable {
    static let minPrefixCount = 8

    let name: String
    /// Lower-case hex digits, or nil for the current version.
    let versionPrefix: String?

    init(_ text: String) throws(RegistryError) {
        guard let at = text.firstIndex(of: "@") else {
            name = text
            versionPrefix = nil
            return
        }
        name = String(text[..<at])
        versionPrefix = try Self.checkedPrefix(String(text[text.index(after: at)...]))
    }

    static func checkedPrefix(_ text: String) throws(RegistryError) -> String {
        let prefix = text.lowercased()
        guard prefix.utf8.count >= minPrefixCount, prefix.utf8.count <= 64,
            prefix.utf8.allSatisfy(isHexDigit)
        else {
            throw RegistryError(
                .invalid,
                "the version \(quoted(text)) is not between \(minPrefixCount) and 64 hex digits")
        }
        return prefix
    }
}

func isHexDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
}
