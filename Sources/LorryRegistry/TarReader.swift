/// One file or folder that an archive announces.
package struct TarEntry: Equatable, Sendable {
    package enum Kind: Equatable, Sendable { case file, directory }
    package var path: String
    package var kind: Kind
    package var byteCount: Int
}

package enum TarEvent: Equatable, Sendable {
    case entry(TarEntry)
    /// The next bytes of the file announced last.
    case data(ArraySlice<UInt8>)
    case endOfFile
}

/// Reads a tar archive that is pushed in pieces of any size; does no I/O.
///
/// Understands V7, ustar (POSIX.1-1988), pax (POSIX.1-2001) and GNU long names, of which it takes
/// plain files and folders. Stricter than most readers: a checksum that does not hold, a link,
/// device or sparse file, a name with NUL or control bytes, a missing end marker (two blocks of
/// zeros) and anything after it are errors.
package struct TarReader {
    private static let blockByteCount = 512
    private static let maxMetadataByteCount = 64 << 10

    private enum State {
        case header
        case content(remaining: Int, padding: Int)
        case metadata(remaining: Int, padding: Int, kind: MetadataKind)
        case padding(Int)
        case trailer(zeroByteCount: Int)
    }
    private enum MetadataKind { case pax, globalPax, longName }

    private let maxEntryCount: Int
    private var state = State.header
    private var block: [UInt8] = []
    private var metadata: [UInt8] = []
    private var entryCount = 0
    private var pendingPath: String?
    private var pendingByteCount: Int?

    package init(maxEntryCount: Int = .max) {
        self.maxEntryCount = maxEntryCount
    }

    /// - Throws: `RegistryError` naming the entry at fault, or whatever `emit` throws.
    package mutating func push(
        _ bytes: ArraySlice<UInt8>, emit: (TarEvent) throws -> Void
    ) throws {
        var rest = bytes
        while !rest.isEmpty {
            switch state {
            case .header:
                block += take(Self.blockByteCount - block.count, from: &rest)
                if block.count == Self.blockByteCount {
                    try readHeader(emit)
                    block.removeAll(keepingCapacity: true)
                }
            case .content(let remaining, let padding):
                let piece = take(remaining, from: &rest)
                try emit(.data(piece))
                if piece.count == remaining {
                    try emit(.endOfFile)
                    state = afterContent(padding)
                } else {
                    state = .content(remaining: remaining - piece.count, padding: padding)
                }
            case .metadata(let remaining, let padding, let kind):
                let piece = take(remaining, from: &rest)
                metadata += piece
                if piece.count == remaining {
                    try readMetadata(kind)
                    state = afterContent(padding)
                } else {
                    state = .metadata(
                        remaining: remaining - piece.count, padding: padding, kind: kind)
                }
            case .padding(let count):
                let piece = take(count, from: &rest)
                state = piece.count == count ? .header : .padding(count - piece.count)
            case .trailer(let count):
                guard rest.allSatisfy({ $0 == 0 }) else {
                    throw RegistryError(.invalid, "the archive goes on after its end marker")
                }
                state = .trailer(zeroByteCount: min(count + rest.count, 1 << 20))
                rest = rest[rest.endIndex...]
            }
        }
    }

    /// - Throws: if the archive is cut short.
    package func finish() throws(RegistryError) {
        guard case .trailer(let zeroByteCount) = state, zeroByteCount >= 2 * Self.blockByteCount
        else {
            throw RegistryError(
                .invalid,
                entryCount == 0
                    ? "the body is not a tar archive" : "the archive is cut short")
        }
    }

    private func take(_ count: Int, from rest: inout ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        let piece = rest.prefix(count)
        rest = rest[piece.endIndex...]
        return piece
    }

    private func afterContent(_ padding: Int) -> State {
        padding == 0 ? .header : .padding(padding)
    }

    private mutating func readHeader(_ emit: (TarEvent) throws -> Void) throws {
        if block.allSatisfy({ $0 == 0 }) {
            guard pendingPath == nil, pendingByteCount == nil else {
                throw RegistryError(.invalid, "the archive ends after an extended header")
            }
            state = .trailer(zeroByteCount: Self.blockByteCount)
            return
        }
        entryCount += 1
        let header = try TarHeader(block, entryNumber: entryCount)
        guard entryCount <= maxEntryCount else {
            throw RegistryError(.tooLarge, "the archive has more than \(maxEntryCount) entries")
        }
        switch header.typeFlag {
        case UInt8(ascii: "x"): try beginMetadata(.pax, header)
        case UInt8(ascii: "g"): try beginMetadata(.globalPax, header)
        case UInt8(ascii: "L"): try beginMetadata(.longName, header)
        default:
            let entry = try self.entry(header)
            let padding = Self.padding(entry.byteCount)
            try emit(.entry(entry))
            if entry.kind == .directory {
                state = .header
            } else if entry.byteCount == 0 {
                try emit(.endOfFile)
                state = .header
            } else {
                state = .content(remaining: entry.byteCount, padding: padding)
            }
        }
    }

    private mutating func entry(_ header: TarHeader) throws(RegistryError) -> TarEntry {
        let path = pendingPath ?? header.path
        let byteCount = pendingByteCount ?? header.byteCount
        pendingPath = nil
        pendingByteCount = nil
        let kind = try header.entryKind(path: path)
        guard kind == .file || byteCount == 0 else {
            throw RegistryError(.invalid, "the folder \(quoted(path)) claims to hold bytes")
        }
        return TarEntry(path: path, kind: kind, byteCount: byteCount)
    }

    private mutating func beginMetadata(
        _ kind: MetadataKind, _ header: TarHeader
    ) throws(RegistryError) {
        guard header.byteCount > 0, header.byteCount <= Self.maxMetadataByteCount else {
            throw RegistryError(
                .invalid, "an extended header of \(header.byteCount) bytes is out of range")
        }
        metadata.removeAll(keepingCapacity: true)
        state = .metadata(
            remaining: header.byteCount, padding: Self.padding(header.byteCount), kind: kind)
    }

    private mutating func readMetadata(_ kind: MetadataKind) throws(RegistryError) {
        if kind == .longName {
            guard pendingPath == nil else {
                throw RegistryError(.invalid, "an entry has two long names")
            }
            let end = metadata.last == 0 ? metadata.count - 1 : metadata.count
            pendingPath = try TarHeader.name(metadata[..<end])
            return
        }
        for (key, value) in try PaxRecords.parse(metadata) {
            switch key {
            case "path" where kind == .pax && pendingPath == nil:
                pendingPath = try TarHeader.name(value)
            case "size" where kind == .pax && pendingByteCount == nil:
                pendingByteCount = try PaxRecords.decimal(value, key: key)
            case "path", "size", "linkpath":
                throw RegistryError(.invalid, "an extended header may not set \(quoted(key)) here")
            case _ where key.hasPrefix("GNU.sparse"):
                throw RegistryError(.unsupported, "the archive holds a sparse file")
            default: break
            }
        }
    }

    private static func padding(_ byteCount: Int) -> Int {
        (blockByteCount - byteCount % blockByteCount) % blockByteCount
    }
}
