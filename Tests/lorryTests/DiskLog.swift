import Foundation

/// The library that is preloaded into a server, and what it wrote; see `disklog.c`.
final class DiskLog: Sendable {
    struct Record: Sendable {
        enum Kind: UInt32 {
            case open = 1
            case write, truncate, sync, close, rename, unlink, makeFolder, removeFolder, mark, map
            case unknown
        }

        let kind: Kind
        let first: Int32
        let second: Int64
        let path: String
        let data: ArraySlice<UInt8>

        var text: String { String(decoding: data, as: UTF8.self) }
    }

    /// What shall fail; several at once.
    struct Operations: OptionSet {
        let rawValue: Int32
        static let open = Operations(.open)
        static let write = Operations(.write)
        static let truncate = Operations(.truncate)
        static let sync = Operations(.sync)
        static let rename = Operations(.rename)
        static let makeFolder = Operations(.makeFolder)

        init(rawValue: Int32) { self.rawValue = rawValue }
        private init(_ kind: Record.Kind) { rawValue = 1 << Int32(kind.rawValue) }
    }

    let root: URL
    private let scratch: ScratchFolder
    private let library: URL
    private let file: URL
    private let fault: URL
    private static let headByteCount = 24

    /// - Parameter root: the folder whose changes are logged.
    init(root: URL) throws {
        self.root = root
        scratch = try ScratchFolder()
        library = scratch.url.appending(path: "disklog.so")
        file = scratch.url.appending(path: "log")
        fault = scratch.url.appending(path: "fault")
        try Data().write(to: file)
        try Data(count: 4096).write(to: fault)
        try DiskTrouble.command([
            "clang", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library.path,
            PackageFiles.fixtures.appending(path: "disklog/disklog.c").path,
        ])
    }

    /// What a process needs to be logged.
    var environment: [String: String] {
        [
            "LD_PRELOAD": library.path, "DISKLOG_ROOT": root.path, "DISKLOG_FILE": file.path,
            "DISKLOG_FAULT": fault.path,
        ]
    }

    /// Puts a line of the test's own into the log, behind all that has been done so far.
    func mark(_ text: String) throws {
        let bytes = Array(text.utf8)
        var record = Data()
        for word in [Record.Kind.mark.rawValue, 0, 0, 0, 0, UInt32(bytes.count)] {
            withUnsafeBytes(of: word.littleEndian) { record.append(contentsOf: $0) }
        }
        // One write at the end of the file, so that no other record is torn.
        let descriptor = open(file.path, O_WRONLY | O_APPEND)
        guard descriptor >= 0 else { throw TestFailure("the log is gone") }
        defer { close(descriptor) }
        let whole = [UInt8](record) + bytes
        guard write(descriptor, whole, whole.count) == whole.count else {
            throw TestFailure("the log takes no mark")
        }
    }

    /// - Parameters:
    ///   - part: only of paths with this in it, or that end so where it ends in a dollar sign.
    ///   - count: how many pass before the first that fails; all after it fail too.
    func fail(
        _ operations: Operations, with code: Int32, in part: String = "", after count: Int32 = 0
    ) throws {
        var bytes = [UInt8](repeating: 0, count: 16 + 64)
        bytes.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(of: code, toByteOffset: 4, as: Int32.self)
            bytes.storeBytes(of: count, toByteOffset: 8, as: Int32.self)
        }
        for (index, byte) in part.utf8.prefix(63).enumerated() { bytes[16 + index] = byte }
        // Armed last, when everything else stands there.
        try overwrite(bytes, at: 0)
        try overwrite(withUnsafeBytes(of: operations.rawValue) { Array($0) }, at: 0)
    }

    func failNothing() throws { try overwrite([0, 0, 0, 0], at: 0) }

    /// Calls that were made to fail since `fail`.
    var failedCount: Int {
        get throws {
            let bytes = try [UInt8](Data(contentsOf: fault))
            return (12..<16).reversed().reduce(0) { $0 << 8 | Int(bytes[$1]) }
        }
    }

    private func overwrite(_ bytes: [UInt8], at offset: UInt64) throws {
        let handle = try FileHandle(forWritingTo: fault)
        defer { try? handle.close() }
        try handle.seek(toOffset: offset)
        try handle.write(contentsOf: bytes)
    }

    func records() throws -> [Record] {
        let bytes = try [UInt8](Data(contentsOf: file))
        var records: [Record] = []
        var place = 0
        func number(_ offset: Int, _ count: Int) -> UInt64 {
            (0..<count).reversed().reduce(0) { $0 << 8 | UInt64(bytes[place + offset + $1]) }
        }
        while place + Self.headByteCount <= bytes.count {
            let (pathCount, dataCount) = (Int(number(16, 4)), Int(number(20, 4)))
            let pathStart = place + Self.headByteCount
            let end = pathStart + pathCount + dataCount
            guard let kind = Record.Kind(rawValue: UInt32(number(0, 4))), end <= bytes.count else {
                throw TestFailure("the log is torn at \(place)")
            }
            records.append(
                Record(
                    kind: kind, first: Int32(truncatingIfNeeded: number(4, 4)),
                    second: Int64(bitPattern: number(8, 8)),
                    path: String(decoding: bytes[pathStart..<pathStart + pathCount], as: UTF8.self),
                    data: bytes[(pathStart + pathCount)..<end]))
            place = end
        }
        return records
    }
}
