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
/// restoring                  only while a restore is under way
/// ```
/// A folder enters `store` by one rename after all of it is on disk, and leaves it by one rename,
/// so whatever stands there is whole.
package final class StateDirectory: Sendable {
    package let path: String
    let files: FileLayer
    /// The lock file's descriptor; nil once given up.
    private let lock: Mutex<Int32?>
    /// The database file that was opened.
    private let openedDatabase = Mutex<FileLayer.Identity?>(nil)

    /// Creates what is missing and takes the lock.
    /// - Parameter isRestore: a restore is to go on in it, which nothing else may use.
    /// - Throws: `RegistryError` of kind `busy` if another process holds it, else `storage`.
    package init(path: String, files: FileLayer, isRestore: Bool = false) throws {
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
            guard try isRestore || files.kind(of: restoreMark) == nil else {
                throw RegistryError(
                    .damaged,
                    "a restore to the state directory \(path) was not finished; run it again")
            }
            try files.createDirectory(staging)
            try files.createDirectory(store)
            try files.syncDirectory(path)
        } catch {
            unlock()
            throw error
        }
    }

    /// Takes the lock of a directory that is there, and creates nothing but the lock's file.
    init(existing path: String, files: FileLayer) throws {
        guard try files.kind(of: path + "/" + Self.databaseName) != nil else {
            throw RegistryError(
                .storage, "\(path) is no state directory: it has no \(Self.databaseName)")
        }
        self.path = path
        self.files = files
        lock = Mutex(try Self.takeLock(path + "/lock", directory: path))
    }

    deinit { unlock() }

    /// Lets another process have the directory.
    func unlock() {
        lock.withLock { descriptor in
            if let open = descriptor { close(open) }
            descriptor = nil
        }
    }

    static let databaseName = "registry.sqlite"

    var database: String { path + "/" + Self.databaseName }
    /// There while a restore fills the directory.
    var restoreMark: String { path + "/restoring" }
    var staging: String { path + "/staging" }
    var store: String { path + "/store" }

    func storeFolder(of version: AdapterVersionID) -> String {
        storeParent(of: version) + "/" + version.digest
    }

    func storeParent(of version: AdapterVersionID) -> String {
        store + "/" + version.digest.prefix(2)
    }

    /// Remembers which database file is open.
    func noteDatabase() throws {
        let opened = try files.identity(of: database)
        openedDatabase.withLock { $0 = opened }
    }

    /// Whoever removes or replaces the directory under a running process leaves it with open files
    /// that nobody will find again: a change must not be acknowledged then.
    func checkInPlace() throws {
        let held = lock.withLock { $0 }.flatMap { FileLayer.identity(of: $0) }
        let lockFile = try files.identity(of: path + "/lock")
        let databaseFile = try files.identity(of: database)
        guard held != nil, held == lockFile, databaseFile == openedDatabase.withLock({ $0 }) else {
            throw RegistryError(
                .storage,
                "the state directory \(path) was removed or replaced while it was in use; put it "
                    + "back, or a backup of it, and start again")
        }
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
