import Foundation
import LorryModel

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The file of API keys on disk, read again when it changes.
public struct KeyFile: Sendable {
    public enum Outcome: Sendable {
        /// Nothing to do.
        case unchanged
        /// Valid, and other than what was read before.
        case read(APIKeys)
        /// Cannot be read, or is invalid: the keys before stay.
        case refused(String)
    }

    /// What tells a file from another, or from itself before a change.
    private struct Mark: Equatable {
        let device: UInt64
        let inode: UInt64
        let size: Int64
        let seconds: Int
        let nanoseconds: Int
        let mode: UInt32
    }

    public let path: String
    /// What the file said when it was read last.
    public private(set) var keys: APIKeys
    private var content: Data
    /// Of the file that was read last, whether it was valid or not.
    private var readMark: Mark?
    private var seenMark: Mark?

    /// - Throws: `APIKeys.FileError` where the file cannot be read or is invalid.
    public init(path: String) throws(APIKeys.FileError) {
        self.path = path
        let mark = Self.mark(of: path)
        content = try Self.content(of: path)
        keys = try APIKeys(yaml: String(decoding: content, as: UTF8.self))
        (readMark, seenMark) = (mark, mark)
    }

    /// Looks at the file, and reads it where it has changed and did not change any more since the
    /// call before: a file that is written in place may be half there.
    ///
    /// - Parameter isForced: reads it in any case.
    public mutating func poll(isForced: Bool = false) -> Outcome {
        let mark = Self.mark(of: path)
        let isSettled = mark == seenMark
        seenMark = mark
        guard isForced || (isSettled && mark != readMark) else { return .unchanged }
        readMark = mark
        do throws(APIKeys.FileError) {
            let new = try Self.content(of: path)
            guard new != content else { return .unchanged }
            let keys = try APIKeys(yaml: String(decoding: new, as: UTF8.self))
            content = new
            self.keys = keys
            return .read(keys)
        } catch {
            return .refused(error.description)
        }
    }

    /// Sentences for the log about what makes the file less safe than it could be.
    public var warnings: [String] {
        var warnings: [String] = []
        if let mark = Self.mark(of: path), mark.mode & 0o004 != 0 {
            warnings.append("every user of this machine can read the API keys file \(path)")
        }
        if !keys.unusedTenants.isEmpty {
            warnings.append(
                "the API keys file \(path) limits tenants that have no key: "
                    + keys.unusedTenants.map { shown($0) }.joined(separator: ", "))
        }
        let plain = keys.plainKeyIDs
        if !plain.isEmpty {
            warnings.append(
                "the API keys file \(path) holds keys in plain text (\(plain.joined(separator: ", "))"
                    + "): put their digests there, which `lorry keys hash` prints")
        }
        return warnings
    }

    private static func content(of path: String) throws(APIKeys.FileError) -> Data {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw APIKeys.FileError("the API keys file \(path) cannot be read")
        }
        return data
    }

    private static func mark(of path: String) -> Mark? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        #if canImport(Darwin)
            let time = status.st_mtimespec
        #else
            let time = status.st_mtim
        #endif
        return Mark(
            device: UInt64(status.st_dev), inode: UInt64(status.st_ino),
            size: Int64(status.st_size), seconds: Int(time.tv_sec),
            nanoseconds: Int(time.tv_nsec), mode: UInt32(status.st_mode))
    }
}
