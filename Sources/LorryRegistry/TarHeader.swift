/// The 512-byte header of a tar entry, checked.
///
/// ```
/// 0 name 100 | 124 size 12 | 148 checksum 8 | 156 type 1 | 157 link 100 | 257 magic 8 | 345 prefix 155
/// ```
/// Sources: POSIX.1-1988 (ustar), GNU tar's manual (base-256 sizes).
struct TarHeader {
    let path: String
    let byteCount: Int
    let typeFlag: UInt8

    init(_ block: [UInt8], entryNumber: Int) throws(RegistryError) {
        guard block.count == 512, Self.checksumHolds(block) else {
            throw RegistryError(
                .invalid,
                entryNumber == 1
                    ? "the body is not a tar archive: its first header's checksum does not hold"
                    : "the archive is damaged: the checksum of header \(entryNumber) does not hold")
        }
        typeFlag = block[156]
        let name = try Self.name(Self.field(block[0..<100]))
        // Only POSIX archives have a prefix there; GNU ones keep times in the same bytes.
        let isPOSIX = block[257..<263].elementsEqual(Array("ustar\0".utf8))
        let prefix = isPOSIX ? try Self.name(Self.field(block[345..<500])) : ""
        path = prefix.isEmpty ? name : prefix + "/" + name
        byteCount = try Self.number(block[124..<136], of: path)
    }

    /// - Throws: by name for everything that is neither a plain file nor a folder.
    func entryKind(path: String) throws(RegistryError) -> TarEntry.Kind {
        switch typeFlag {
        case UInt8(ascii: "0"), 0, UInt8(ascii: "7"):
            // V7 had no type for folders but the slash.
            return path.hasSuffix("/") ? .directory : .file
        case UInt8(ascii: "5"): return .directory
        case UInt8(ascii: "1"), UInt8(ascii: "2"), UInt8(ascii: "K"):
            throw RegistryError(.invalid, "\(quoted(path)) is a link; only plain files are taken")
        case UInt8(ascii: "3"), UInt8(ascii: "4"), UInt8(ascii: "6"):
            throw RegistryError(
                .invalid, "\(quoted(path)) is a device or pipe; only plain files are taken")
        case UInt8(ascii: "S"):
            throw RegistryError(.unsupported, "\(quoted(path)) is a sparse file")
        default:
            throw RegistryError(
                .unsupported, "\(quoted(path)) has the unknown entry type \(typeFlag)")
        }
    }

    /// A name as text; printable ASCII only, so that nothing hides in it.
    static func name(_ bytes: ArraySlice<UInt8>) throws(RegistryError) -> String {
        let text = String(decoding: bytes, as: UTF8.self)
        guard bytes.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else {
            throw RegistryError(
                .invalid, "the name \(quoted(text)) holds control or non-ASCII characters")
        }
        return text
    }

    /// The bytes up to the first NUL; what follows it must be NUL too, which `name` checks.
    private static func field(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        let end = bytes.firstIndex(of: 0) ?? bytes.endIndex
        return bytes[end...].allSatisfy { $0 == 0 } ? bytes[..<end] : bytes
    }

    private static func checksumHolds(_ block: [UInt8]) -> Bool {
        guard let expected = octal(block[148..<156]) else { return false }
        var sum = 8 * Int(UInt8(ascii: " "))
        for (index, byte) in block.enumerated() where !(148..<156).contains(index) {
            sum += Int(byte)
        }
        return sum == expected
    }

    private static func number(
        _ field: ArraySlice<UInt8>, of path: String
    ) throws(RegistryError) -> Int {
        if let first = field.first, first & 0x80 != 0 {
            // Base-256, big-endian; the sign bit is 0x40.
            var value = Int(first & 0x7F)
            for byte in field.dropFirst() {
                let (next, overflow) = value.multipliedReportingOverflow(by: 256)
                guard !overflow, first & 0x40 == 0 else {
                    throw RegistryError(.invalid, "the size of \(quoted(path)) is out of range")
                }
                value = next | Int(byte)
            }
            return value
        }
        guard let value = octal(field) else {
            throw RegistryError(.invalid, "the size of \(quoted(path)) is not a number")
        }
        return value
    }

    /// Octal digits between spaces and NULs; at most 12, so no overflow.
    private static func octal(_ field: ArraySlice<UInt8>) -> Int? {
        let blank: (UInt8) -> Bool = { $0 == 0 || $0 == UInt8(ascii: " ") }
        let digits = field.drop(while: blank).prefix { !blank($0) }
        guard !digits.isEmpty, field[digits.endIndex...].allSatisfy(blank) else { return nil }
        var value = 0
        for digit in digits {
            guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "7") else { return nil }
            value = value * 8 + Int(digit - UInt8(ascii: "0"))
        }
        return value
    }
}

/// The records of a pax extended header: `<length> <key>=<value>\n` each (POSIX.1-2001, pax).
enum PaxRecords {
    static func parse(_ bytes: [UInt8]) throws(RegistryError) -> [(String, ArraySlice<UInt8>)] {
        var records: [(String, ArraySlice<UInt8>)] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let digits = rest.prefix { $0 != UInt8(ascii: " ") }
            let length = try decimal(digits, key: "length")
            guard length > digits.count + 1, length <= rest.count else { throw malformed }
            let record = rest.prefix(length)
            guard record.last == UInt8(ascii: "\n") else { throw malformed }
            let pair = record.dropFirst(digits.count + 1).dropLast()
            guard let equals = pair.firstIndex(of: UInt8(ascii: "=")) else { throw malformed }
            let key = String(decoding: pair[..<equals], as: UTF8.self)
            records.append((key, pair[(equals + 1)...]))
            rest = rest[record.endIndex...]
        }
        return records
    }

    static func decimal(_ bytes: ArraySlice<UInt8>, key: String) throws(RegistryError) -> Int {
        guard !bytes.isEmpty, bytes.count <= 18,
            bytes.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
        else { throw RegistryError(.invalid, "an extended header's \(key) is not a number") }
        return bytes.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
    }

    private static var malformed: RegistryError {
        RegistryError(.invalid, "the archive has a malformed extended header")
    }
}
