import Crypto

/// Reads an adapter out of a local folder, through no link.
struct FolderCopy {
    let source: String
    let files: FileLayer

    /// Names to copy, sorted, and names left where they are.
    /// - Throws: as `AdapterFile.fate` does, and for a file to copy that is no plain file.
    func names() throws -> (copied: [String], ignored: [String]) {
        guard try files.kind(of: source) == .directory else {
            throw RegistryError(.invalid, "\(source) is not a folder")
        }
        var copied: [String] = []
        var ignored: [String] = []
        for name in try files.children(of: source) {
            // Sub-folders are a trainer's checkpoints and logs.
            let isFolder = try files.kind(of: source + "/" + name) == .directory
            if isFolder || AdapterFile.trainingState.contains(name) {
                ignored.append(name)
                continue
            }
            switch try AdapterFile.fate(of: name) {
            case .store: copied.append(name)
            case .ignore, .unknown: ignored.append(name)
            }
        }
        return (copied, ignored)
    }

    func copy(into folder: StagedFolder) throws {
        for name in try names().copied {
            let file = try files.openFile(source + "/" + name)
            try folder.begin(name)
            while let bytes = try file.read() { try folder.write(bytes[...]) }
            try folder.end()
        }
    }

    /// The version that the folder's files would make, without copying them.
    func version(_ limits: UploadLimits) throws -> AdapterVersionID {
        var stored: [StoredFile] = []
        var configuration: [UInt8]?
        for name in try names().copied {
            let file = try files.openFile(source + "/" + name)
            let limit = AdapterFile.maxByteCount(of: name, limits)
            var hash = SHA256()
            var byteCount = 0
            var kept: [UInt8] = []
            while let bytes = try file.read() {
                byteCount += bytes.count
                guard byteCount <= limit else {
                    throw RegistryError(
                        .tooLarge, "\(quoted(name)) is larger than the limit of \(limit) bytes")
                }
                bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
                if name == AdapterFile.configuration { kept += bytes }
            }
            if name == AdapterFile.configuration { configuration = kept }
            stored.append(
                StoredFile(
                    name: name, byteCount: byteCount, sha256: ContentDigest.hex(hash.finalize())))
        }
        guard let configuration else {
            throw RegistryError(.invalid, "\(AdapterFile.configuration) is missing")
        }
        return try ContentDigest.version(of: stored, configuration: configuration)
    }
}
