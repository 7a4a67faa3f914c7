import Foundation
import LorryModel
import Synchronization

/// Keeps one version's files in place, whatever happens to its name, until it is released.
public final class AdapterLease: Sendable {
    /// The adapter as it was when the lease was taken, with the version that the lease holds.
    public let record: AdapterRecord
    /// The folder with the version's files; nobody writes to it.
    public let directory: URL
    /// Of the files as they were stored. Nil for what older versions of Lorry stored: such files are
    /// read whole by `contentProblem`.
    public let checksums: AdapterChecksums?

    private let core: RegistryCore
    private let isReleased = Mutex(false)

    /// The caller has counted the lease already, under the lock that found the version.
    init(
        record: AdapterRecord, directory: URL, checksums: AdapterChecksums?, core: RegistryCore
    ) {
        self.record = record
        self.directory = directory
        self.checksums = checksums
        self.core = core
    }

    deinit { release() }

    /// Reads and hashes the version's files.
    ///
    /// - Returns: what is wrong with them; nil if nothing.
    public func contentProblem() -> String? { core.contentProblem(of: record.version) }

    /// As `contentProblem`, of the files that `checksums` does not cover: tokenizer and template.
    public func textProblem() -> String? {
        guard let version = core.withContents({ $0.versions[record.version] }) else { return nil }
        let others = version.files.filter {
            !AdapterFile.weights.contains($0.name) && $0.name != AdapterFile.configuration
        }
        do {
            return try core.files.sizeProblem(version.files, in: directory.path)
                ?? core.files.digestProblem(others, in: directory.path)
        } catch {
            return String(describing: error)
        }
    }

    /// Harmless when repeated; letting go of the lease does the same.
    public func release() {
        let first = isReleased.withLock { released in
            defer { released = true }
            return !released
        }
        if first { core.release(record.version) }
    }
}
