import Foundation

/// What tells that a file is still the one that was read: the same inode, size and times.
///
/// The time of change (ctime) cannot be set by programs, so a file whose bytes were replaced and
/// whose time of modification was put back has another identity. The device's number is left out:
/// containers and network mounts get a new one at each start.
struct FileIdentity: Codable, Equatable, Sendable {
    struct Time: Codable, Equatable, Sendable {
        var seconds: Int
        var nanoseconds: Int
    }

    var inode: UInt64
    var byteCount: Int
    var modified: Time
    var changed: Time

    init(_ status: stat) {
        inode = UInt64(status.st_ino)
        byteCount = Int(status.st_size)
        #if canImport(Darwin)
            modified = Time(status.st_mtimespec)
            changed = Time(status.st_ctimespec)
        #else
            modified = Time(status.st_mtim)
            changed = Time(status.st_ctim)
        #endif
    }

    /// Nil where the file cannot be looked at.
    init?(path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        self.init(status)
    }

    /// How long after `changed` the file may change once more without getting another identity,
    /// as the file system's clock ticks no faster.
    private var tick: Duration {
        // Linux stamps files with the time of its last timer interrupt, at most 10 ms ago. A
        // stamp without a fraction comes from a file system that keeps whole seconds (FAT: two).
        changed.nanoseconds == 0 ? .seconds(2) : .milliseconds(20)
    }

    /// How long to wait until a further change of the file must show in its identity; negative
    /// where it has been that long already.
    func timeToSettle(now: timespec) -> Duration {
        let since =
            Duration.seconds(changed.seconds) + .nanoseconds(changed.nanoseconds)
            - (.seconds(now.tv_sec) + .nanoseconds(now.tv_nsec))
        return since + tick
    }
}

extension FileIdentity.Time {
    fileprivate init(_ time: timespec) {
        seconds = time.tv_sec
        nanoseconds = time.tv_nsec
    }
}
