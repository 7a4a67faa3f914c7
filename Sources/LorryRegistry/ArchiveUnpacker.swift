/// Unpacks a tar or tar.gz body, pushed in pieces, into a staged folder.
///
/// Names must be flat, or all inside one common top folder; `./` in front is taken off.
package final class ArchiveUnpacker {
    private enum Format {
        case undecided, tar
        case gzip(Gunzip)
    }

    private let folder: StagedFolder
    private let limits: UploadLimits
    private var tar: TarReader
    private var format = Format.undecided
    private var head: [UInt8] = []
    private var bodyByteCount = 0
    private var expandedByteCount = 0
    /// The folder that all files are in: "" for none, nil before the first file.
    private var topFolder: String?

    package init(into folder: StagedFolder, limits: UploadLimits) {
        self.folder = folder
        self.limits = limits
        tar = TarReader(maxEntryCount: limits.maxEntryCount)
    }

    package func push(_ bytes: ArraySlice<UInt8>) throws {
        bodyByteCount += bytes.count
        guard bodyByteCount <= limits.maxBodyByteCount else {
            throw RegistryError(
                .tooLarge, "the body is larger than the limit of \(limits.maxBodyByteCount) bytes")
        }
        switch format {
        case .undecided:
            head += bytes
            if head.count >= 6 { try decide() }
        case .tar: try unpack(bytes)
        case .gzip(let gunzip): try expand(bytes, gunzip)
        }
    }

    package func finish() throws {
        if case .undecided = format { try decide() }
        if case .gzip(let gunzip) = format { try gunzip.finish() }
        try tar.finish()
    }

    /// The first bytes tell the format, whatever the client's header said.
    private func decide() throws {
        let bytes = head
        head = []
        if bytes.starts(with: Gunzip.magic) {
            let gunzip = try Gunzip()
            format = .gzip(gunzip)
            try expand(bytes[...], gunzip)
            return
        }
        let others: [(magic: [UInt8], name: String)] = [
            (Array("PK\u{3}\u{4}".utf8), "zip"), (Array("BZh".utf8), "bzip2"),
            ([0xFD] + Array("7zXZ".utf8), "xz"), ([0x28, 0xB5, 0x2F, 0xFD], "zstd"),
        ]
        if let other = others.first(where: { bytes.starts(with: $0.magic) }) {
            throw RegistryError(
                .unsupported, "the body is a \(other.name) file; send tar, plain or with gzip")
        }
        format = .tar
        try unpack(bytes[...])
    }

    private func expand(_ bytes: ArraySlice<UInt8>, _ gunzip: Gunzip) throws {
        try gunzip.push(bytes) { expanded in
            expandedByteCount += expanded.count
            let allowed = max(
                limits.freeExpansionByteCount,
                bodyByteCount.multipliedReportingOverflow(by: limits.maxExpansionRatio).partialValue
            )
            guard expandedByteCount <= allowed else {
                throw RegistryError(
                    .tooLarge,
                    "the gzip body expands more than \(limits.maxExpansionRatio) times")
            }
            try unpack(expanded)
        }
    }

    private func unpack(_ bytes: ArraySlice<UInt8>) throws {
        try tar.push(bytes) { event in
            switch event {
            case .entry(let entry):
                if let name = try flatName(entry) {
                    try folder.begin(name, byteCount: entry.byteCount)
                }
            case .data(let data): try folder.write(data)
            case .endOfFile: try folder.end()
            }
        }
    }

    /// The name within the adapter; nil for a folder.
    private func flatName(_ entry: TarEntry) throws(RegistryError) -> String? {
        let path = entry.path
        guard !path.hasPrefix("/") else {
            throw RegistryError(.invalid, "\(quoted(path)) is an absolute path")
        }
        var parts = path.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        if entry.kind == .directory, parts.last == "" { parts.removeLast() }
        while parts.first == "." { parts.removeFirst() }
        guard !parts.contains("..") else {
            throw RegistryError(.invalid, "\(quoted(path)) leaves its folder")
        }
        guard !parts.contains(""), !parts.contains("."), !path.contains("\\") else {
            throw RegistryError(.invalid, "\(quoted(path)) is not a plain path")
        }
        if entry.kind == .directory {
            guard parts.count <= 1 else { throw nested(path) }
            return nil
        }
        guard let name = parts.popLast(), parts.count <= 1 else { throw nested(path) }
        // macOS puts such a companion of the top folder beside it.
        if name.hasPrefix("._") { return name }
        let folder = parts.first ?? ""
        guard (topFolder ?? folder) == folder else {
            throw RegistryError(
                .invalid, "\(quoted(path)) is in another folder than the files before it")
        }
        topFolder = folder
        return name
    }

    private func nested(_ path: String) -> RegistryError {
        RegistryError(.invalid, "\(quoted(path)) is in a nested folder; an adapter is flat")
    }
}
