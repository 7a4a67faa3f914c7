import Crypto
import Dispatch
import Foundation
import Logging

/// A version whose files are not what was stored.
public struct DamagedVersion: Sendable, Equatable {
    public let version: AdapterVersionID
    /// The names that have it, current or not.
    public let names: [AdapterKey]
    public let problem: String
}

extension AdapterRegistry {
    /// Reads and hashes every stored file; versions that fail are marked and no longer served.
    /// - Parameter progress: called after each version with versions done and their total.
    /// - Throws: `storage` if the audit entry cannot be written.
    public func check(
        actor: String,
        progress: @escaping @Sendable (_ done: Int, _ total: Int) -> Void = { _, _ in }
    ) async throws(RegistryError) -> [DamagedVersion] {
        let stored = core.withContents { contents in
            for version in contents.versions.keys { contents.hold(version) }
            return contents.versions.values.sorted { $0.id.digest < $1.id.digest }
        }
        defer { for version in stored { core.release(version.id) } }
        let problems = await withCheckedContinuation { continuation in
            DispatchQueue.global().async { [core] in
                var problems: [(AdapterVersionID, String)] = []
                for (index, version) in stored.enumerated() {
                    if let problem = core.contentProblem(version) {
                        problems.append((version.id, problem))
                    }
                    progress(index + 1, stored.count)
                }
                continuation.resume(returning: problems)
            }
        }
        var damaged: [DamagedVersion] = []
        for (version, problem) in problems {
            try await writer.markDamaged(version, problem: problem, actor: actor)
            let names = core.withContents { contents in
                contents.names.values.filter { $0.contains(version) }.map(\.key).sorted()
            }
            damaged.append(DamagedVersion(version: version, names: names, problem: problem))
        }
        return damaged
    }
}

extension AdapterRegistry {
    /// Looks again at a version whose files a load found to be others than those stored, and marks
    /// it where they are: it is no longer served, and storing it again heals it. Where the audit
    /// entry cannot be written it is logged.
    public func reportDamage(_ version: AdapterVersionID, actor: String) {
        DispatchQueue.global().async { [writer, core] in
            guard let problem = core.contentProblem(of: version) else { return }
            Task {
                do {
                    try await writer.markDamaged(version, problem: problem, actor: actor)
                } catch {
                    core.log.error(
                        "cannot note a damaged version",
                        metadata: ["version": "\(version)", "reason": "\(error)"])
                }
            }
        }
    }
}

extension RegistryCore {
    /// What is wrong with a version's files by their content; nil if nothing.
    func contentProblem(of id: AdapterVersionID) -> String? {
        guard let version = withContents({ $0.versions[id] }) else { return nil }
        return contentProblem(version)
    }

    /// What is wrong with a version's files by their content; nil if nothing.
    func contentProblem(_ version: StoredVersion) -> String? {
        files.contentProblem(version.files, in: state.storeFolder(of: version.id))
    }
}

extension FileLayer {
    /// What is wrong with a version's files by their names and sizes; nil if nothing. A file more is
    /// wrong too: a tokenizer or template that nobody uploaded would be used.
    func sizeProblem(_ stored: [StoredFile], in folder: String) throws -> String? {
        for file in stored {
            guard let status = try status(of: folder + "/" + file.name) else {
                return "\(file.name) is missing"
            }
            guard status.kind == .file else { return "\(file.name) is not a plain file" }
            guard status.byteCount == file.byteCount else {
                return "\(file.name) has \(status.byteCount) bytes instead of \(file.byteCount)"
            }
        }
        let extra = Set(try children(of: folder)).subtracting(stored.map(\.name))
        return extra.min().map { "\(quoted($0)) does not belong to it" }
    }

    /// What is wrong with a version's files by their bytes; nil if nothing.
    func contentProblem(_ stored: [StoredFile], in folder: String) -> String? {
        do {
            if let problem = try sizeProblem(stored, in: folder) { return problem }
            return try digestProblem(stored, in: folder)
        } catch {
            return String(describing: error)
        }
    }

    /// - Throws: `RegistryError` if a file cannot be read.
    func digestProblem(_ stored: [StoredFile], in folder: String) throws -> String? {
        for expected in stored {
            let file = try openFile(folder + "/" + expected.name)
            var hash = SHA256()
            while let bytes = try file.read() {
                bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
            }
            guard ContentDigest.hex(hash.finalize()) == expected.sha256 else {
                return "\(expected.name) has other bytes than were stored"
            }
        }
        return nil
    }
}
