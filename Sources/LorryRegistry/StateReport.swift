import Foundation

/// What a check of a whole state directory found.
public struct StateReport: Sendable, Equatable, Codable {
    public var nameCount = 0
    public var versionCount = 0
    /// Bytes of all files that were read.
    public var byteCount = 0
    /// What is wrong, each with its place.
    public var problems: [String] = []
    /// What nobody needs: unfinished uploads, versions without a name, foreign files. The next start
    /// removes the first two.
    public var leftovers: [String] = []

    public init() {}
}

extension StateReport {
    /// Reads a state directory that no process uses, and changes nothing in it.
    /// - Throws: `busy` if a process uses it, `storage` if it cannot be read. A database that cannot
    ///   be read is a problem of the report.
    public static func ofUnused(_ directory: URL) throws(RegistryError) -> StateReport {
        do {
            let files = FileLayer()
            let state = try StateDirectory(existing: directory.path, files: files)
            defer { state.unlock() }
            var report = StateReport()
            let contents: RegistryContents
            do {
                let examined = try RegistryDatabase.examine(state.database)
                contents = examined.contents
                report.problems += examined.problems.map { "\(state.database): \($0)" }
            } catch let error as RegistryError {
                report.problems.append(error.message)
                return report
            }
            try report.add(contents, state, files)
            report.leftovers += try files.childrenIfThere(of: state.staging)
                .map { "staging/\($0): an unfinished upload" }
            return report
        } catch {
            throw RegistryError.wrapping(error)
        }
    }

    fileprivate mutating func add(
        _ contents: RegistryContents, _ state: StateDirectory, _ files: FileLayer
    ) throws {
        nameCount = contents.names.count
        versionCount = contents.versions.count
        for version in contents.versions.values.sorted(by: { $0.id.digest < $1.id.digest }) {
            byteCount += version.storedByteCount
            let folder = state.storeFolder(of: version.id)
            if let problem = try files.wholeProblem(version, in: folder) {
                problems.append("\(version.id)\(contents.users(of: version.id)): \(problem)")
            }
        }
        try addOrphans(contents, state, files)
    }

    fileprivate mutating func addOrphans(
        _ contents: RegistryContents, _ state: StateDirectory, _ files: FileLayer
    ) throws {
        for parent in try files.childrenIfThere(of: state.store) {
            let folder = state.store + "/" + parent
            guard try files.kind(of: folder) == .directory else {
                leftovers.append("store/\(parent): not of Lorry")
                continue
            }
            for name in try files.childrenIfThere(of: folder) {
                let version = try? AdapterVersionID(name)
                if let version, name.hasPrefix(parent) {
                    if contents.versions[version] != nil || contents.isHeld(version) { continue }
                    leftovers.append("store/\(parent)/\(name): a version that no name has")
                } else {
                    leftovers.append("store/\(parent)/\(name): not of Lorry")
                }
            }
        }
    }
}

extension AdapterRegistry {
    /// Checks the database and every stored file while both are in use; versions that fail are
    /// marked and no longer served.
    /// - Throws: `storage` if the database or the store cannot be read.
    public func report(actor: String) async throws(RegistryError) -> StateReport {
        var report = StateReport()
        let counts = core.withContents { contents in
            let byteCount = contents.versions.values.reduce(0) { $0 + $1.storedByteCount }
            return (contents.names.count, contents.versions.count, byteCount)
        }
        (report.nameCount, report.versionCount, report.byteCount) = counts
        report.problems += try await core.database.problems().map { "registry.sqlite: \($0)" }
        for damaged in try await check(actor: actor) {
            let names = damaged.names.map(\.description).joined(separator: ", ")
            report.problems.append("\(damaged.version) (\(names)): \(damaged.problem)")
        }
        report.leftovers = try await writer.orphans()
        return report
    }
}

extension RegistryWriter {
    /// Between changes, so that a version on its way in or out is not taken for an orphan.
    func orphans() throws(RegistryError) -> [String] {
        do {
            let contents = core.withContents { $0 }
            var report = StateReport()
            try report.addOrphans(contents, core.state, core.files)
            return report.leftovers
        } catch {
            throw RegistryError.wrapping(error)
        }
    }
}

extension RegistryContents {
    /// " (names)", or nothing where no name has the version.
    fileprivate func users(of version: AdapterVersionID) -> String {
        let keys = names.values.filter { $0.contains(version) }.map(\.key).sorted()
        return keys.isEmpty
            ? "" : " (" + keys.map(\.description).joined(separator: ", ") + ")"
    }
}

extension FileLayer {
    /// Empty if the folder is not there.
    fileprivate func childrenIfThere(of path: String) throws -> [String] {
        try kind(of: path) == nil ? [] : children(of: path)
    }

    /// As `contentProblem`, and whether the files make this version.
    fileprivate func wholeProblem(_ version: StoredVersion, in folder: String) throws -> String? {
        guard try kind(of: folder) == .directory else { return "its folder is missing" }
        if let problem = contentProblem(version.files, in: folder) { return problem }
        let configuration = try readFile(
            folder + "/" + AdapterFile.configuration,
            maxByteCount: UploadLimits().maxConfigurationByteCount)
        return try ContentDigest.version(of: version.files, configuration: configuration)
            == version.id ? nil : "its row does not belong to its files"
    }
}
