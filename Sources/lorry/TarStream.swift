import Foundation

/// An adapter's folder as a ustar archive (POSIX.1-2017, pax, "ustar Interchange Format"), written
/// part by part so that no whole file is ever held.
struct TarStream: Sendable {
    private struct Entry: Sendable {
        let file: URL
        let name: String
        let byteCount: Int

        var paddedByteCount: Int {
            (byteCount + TarStream.block - 1) / TarStream.block * TarStream.block
        }
    }

    private static let block = 512
    private static let chunkByteCount = 256 << 10

    private let entries: [Entry]

    /// - Parameter names: files to take, those that are there.
    /// - Throws: `ClientError` where the folder has none of them, or one cannot be read.
    init(folder: URL, names: some Sequence<String>) throws(ClientError) {
        var entries: [Entry] = []
        for name in names.sorted() {
            let file = folder.appendingPathComponent(name)
            guard FileManager.default.fileExists(atPath: file.path) else { continue }
            guard
                let attributes = try? FileManager.default.attributesOfItem(
                    atPath: file.resolvingSymlinksInPath().path),
                let size = (attributes[.size] as? NSNumber)?.intValue
            else { throw ClientError("cannot read \(file.path)") }
            entries.append(Entry(file: file, name: name, byteCount: size))
        }
        guard !entries.isEmpty else {
            throw ClientError("\(folder.path) has no file of an adapter")
        }
        self.entries = entries
    }

    /// Of the whole archive.
    var byteCount: Int {
        entries.reduce(2 * Self.block) { $0 + Self.block + $1.paddedByteCount }
    }

    func write(_ send: ([UInt8]) async throws -> Void) async throws {
        for entry in entries {
            try await send(Self.header(entry))
            let handle = try FileHandle(forReadingFrom: entry.file)
            defer { try? handle.close() }
            var left = entry.byteCount
            while left > 0 {
                let data = try handle.read(upToCount: min(left, Self.chunkByteCount)) ?? Data()
                guard !data.isEmpty else {
                    throw ClientError("\(entry.file.path) became shorter while it was sent")
                }
                left -= data.count
                try await send(Array(data))
            }
            let padding = entry.paddedByteCount - entry.byteCount
            if padding > 0 { try await send([UInt8](repeating: 0, count: padding)) }
        }
        try await send([UInt8](repeating: 0, count: 2 * Self.block))
    }

    private static func header(_ entry: Entry) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: block)
        func put(_ text: String, at offset: Int) {
            for (index, byte) in text.utf8.enumerated() { header[offset + index] = byte }
        }
        func octal(_ value: Int, digits: Int) -> String {
            let text = String(value, radix: 8)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        put(entry.name, at: 0)
        put(octal(0o644, digits: 7), at: 100)
        put(octal(0, digits: 7), at: 108)
        put(octal(0, digits: 7), at: 116)
        // Eleven octal digits reach 8 GiB, more than an adapter's weights may have.
        put(octal(entry.byteCount, digits: 11), at: 124)
        put(octal(0, digits: 11), at: 136)
        put("0", at: 156)
        put("ustar", at: 257)
        put("00", at: 263)
        // The checksum is taken with its own field as spaces.
        put("        ", at: 148)
        let sum = header.reduce(0) { $0 + Int($1) }
        put(octal(sum, digits: 6), at: 148)
        header[154] = 0
        return header
    }
}
