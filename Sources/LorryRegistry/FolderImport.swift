import Dispatch
import Foundation
import Synchronization

/// What became of one folder of an import.
public struct ImportOutcome: Sendable, Equatable {
    public enum Result: Sendable, Equatable {
        /// It is the name's current version now.
        case registered(AdapterRecord)
        /// The name has this content as its current version.
        case unchanged(AdapterRecord)
        /// The name has moved on from this content by an upload or rollback, and stays there.
        case superseded(AdapterRecord)
        case refused(RegistryError)
    }

    /// The folder's name, which is the adapter's.
    public let name: String
    public let result: Result
}

extension AdapterRegistry {
    private static let batchCount = 64

    /// Registers every sub-folder that has an adapter_config.json under the folder's name.
    ///
    /// All content is hashed; only what the name has never had is copied and inspected. Folders
    /// are handled in batches with one commit each.
    /// - Parameter progress: called after each batch with the folders done and their total.
    /// - Returns: one outcome per folder, in order of names.
    /// - Throws: only if the directory cannot be read.
    public func importFolders(
        in directory: URL, tenant: String = AdapterKey.sharedTenant, actor: String,
        progress: @Sendable (_ done: Int, _ total: Int) -> Void = { _, _ in }
    ) async throws(RegistryError) -> [ImportOutcome] {
        let names = try adapterFolders(in: directory.path)
        var outcomes: [ImportOutcome] = []
        for start in stride(from: 0, to: names.count, by: Self.batchCount) {
            let batch = Array(names[start..<min(names.count, start + Self.batchCount)])
            outcomes += await importBatch(batch, directory.path, tenant: tenant, actor: actor)
            progress(outcomes.count, names.count)
        }
        return outcomes
    }

    private func adapterFolders(in directory: String) throws(RegistryError) -> [String] {
        do {
            return try core.files.children(of: directory).filter { name in
                let folder = directory + "/" + name
                return try core.files.kind(of: folder) == .directory
                    && core.files.kind(of: folder + "/" + AdapterFile.configuration) != nil
            }
        } catch {
            throw RegistryError.wrapping(error)
        }
    }

    private func importBatch(
        _ names: [String], _ directory: String, tenant: String, actor: String
    ) async -> [ImportOutcome] {
        let examined = await examine(names, directory, tenant: tenant)
        var results = examined.map { examined -> ImportOutcome.Result? in
            if case .known(let result) = examined { result } else { nil }
        }
        let additions = zip(names, examined).compactMap { name, examined -> Addition? in
            guard case .staged(let staged) = examined else { return nil }
            return Addition(
                key: AdapterKey(name: name, tenant: tenant), staged: staged, actor: actor)
        }
        let added: [ImportOutcome.Result]
        do throws(RegistryError) {
            added = try await writer.add(additions).map { .registered($0.record) }
        } catch {
            for addition in additions { try? core.files.removeTree(addition.staged.path) }
            added = additions.map { _ in .refused(error) }
        }
        var next = added.makeIterator()
        for index in results.indices where results[index] == nil { results[index] = next.next() }
        return zip(names, results).compactMap { name, result in
            result.map { ImportOutcome(name: name, result: $0) }
        }
    }

    private enum Examined: Sendable {
        case known(ImportOutcome.Result)
        case staged(StagedVersion)
    }

    /// Hashes, copies and inspects a batch on as many threads as there are cores.
    private func examine(
        _ names: [String], _ directory: String, tenant: String
    ) async -> [Examined] {
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async { [self] in
                let results = Mutex<[Int: Examined]>([:])
                DispatchQueue.concurrentPerform(iterations: names.count) { index in
                    let key = AdapterKey(name: names[index], tenant: tenant)
                    let result = examine(key, folder: directory + "/" + names[index])
                    results.withLock { $0[index] = result }
                }
                let done = results.withLock { $0 }
                continuation.resume(returning: names.indices.compactMap { done[$0] })
            }
        }
    }

    private func examine(_ key: AdapterKey, folder: String) -> Examined {
        let copy = FolderCopy(source: folder, files: core.files)
        let limits = core.configuration.limits
        let path = core.state.newStagingPath()
        do {
            try checkNew(key)
            let known = core.withContents {
                ($0.names[key], $0.record(key), $0.damage, $0.misfits)
            }
            if let entry = known.0, let record = known.1 {
                let version = try copy.version(limits)
                if let problem = known.3[version] { throw RegistryError.misfit(key.name, problem) }
                if known.2[version] == nil, entry.contains(version) {
                    return .known(
                        entry.current.version == version
                            ? .unchanged(record) : .superseded(record))
                }
            }
            let staged = try StagedFolder(path: path, files: core.files, limits: limits)
            try copy.copy(into: staged)
            return .staged(try staged.seal(inspect: core.inspect))
        } catch {
            try? core.files.removeTree(path)
            return .known(.refused(RegistryError.wrapping(error)))
        }
    }
}

/// Folders that a client may name.
public enum LocalFolder {
    /// The real folder behind a client's path, which must lie below one of the roots.
    ///
    /// Links are resolved first, so none leads outside.
    /// - Throws: `invalid` if it is not a folder there; the message does not tell which.
    public static func resolve(
        _ path: String, below roots: [URL]
    ) throws(RegistryError) -> URL {
        let refusal = RegistryError(
            .invalid, "\(quoted(path)) is not a folder below an allowed root")
        guard !path.utf8.contains(0) else { throw refusal }
        for root in roots {
            guard let realRoot = realPath(root.path) else { continue }
            let full = path.hasPrefix("/") ? path : realRoot + "/" + path
            guard let real = realPath(full), real.hasPrefix(realRoot + "/") else { continue }
            guard (try? FileLayer().kind(of: real)) == .directory else { continue }
            return URL(fileURLWithPath: real, isDirectory: true)
        }
        throw refusal
    }
}
