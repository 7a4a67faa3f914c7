import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The registry's folders, and the lock that makes them one process's own.
///
/// ```
/// lock                       held with flock; holds the owner's process id
/// registry.sqlite            names, versions, history, audit, usage (plus -wal and -shm)
/// staging/<uuid>/            an upload under way, or a version being thrown away
/// store/<aa>/<sha256>/       the files of one version; aa = its first two digits
/// ```
/// A folder enters `store` by one rename after all of it is on disk, and leaves it by one rename,
/// so whatever stands there is whole.
package final class StateDirectory: Sendable {
    package let path: String
    let files: FileLayer
    /// The lock file's descriptor; nil once given up.
    private let lock: Mutex<Int32?>

    /// Creates what is missing and takes the lock.
    /// - Throws: `RegistryError` of kind `busy` if another process holds it, else `storage`.
    package init(path: String, files: FileLayer) throws {
        self.path = path
        self.files = files
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
        } catch {
            throw RegistryError(
                .storage, "cannot create the state directory \(path): \(error.localizedDescription)"
            )
        }
        lock = Mutex(try Self.takeLock(path + "/lock", directory: path))
        do {
            try files.createDirectory(staging)
            try files.createDirectory(store)
            try files.syncDirectory(path)
        } catch {
            unlock()
            throw error
        }
    }

    deinit { unlock() }

    /// Lets another process have the directory.
    func unlock() {
        lock.withLock { descriptor in
            if let open = descriptor { close(open) }
            descriptor = nil
        }
    }

    var database: String { path + "/registry.sqlite" }
    var staging: String { path + "/staging" }
    var store: String { path + "/store" }

    func storeFolder(of version: AdapterVersionID) -> String {
        storeParent(of: version) + "/" + version.digest
    }

    func storeParent(of version: AdapterVersionID) -> String {
        store + "/" + version.digest.prefix(2)
    }

    /// A path in `staging` that nothing has had before.
    func newStagingPath() -> String { staging + "/" + UUID().uuidString.lowercased() }

    private static func takeLock(_ file: String, directory: String) throws -> Int32 {
        let descriptor = open(file, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw FileLayer.failure("cannot open the lock file", file, errno)
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            close(descriptor)
            guard code == EWOULDBLOCK else {
                throw FileLayer.failure("cannot lock", file, code)
            }
            let owner = (try? String(contentsOfFile: file, encoding: .utf8)).flatMap { Int($0) }
            throw RegistryError(
                .busy,
                "the state directory \(directory) is in use by "
                    + (owner.map { "process \($0)" } ?? "another process")
                    + "; stop it, or use its admin API")
        }
        let owner = Array(String(getpid()).utf8)
        // The number only helps a message, so a disk too full to hold it does no harm.
        _ = ftruncate(descriptor, 0)
        _ = pwrite(descriptor, owner, owner.count, 0)
        return descriptor
    }
}
