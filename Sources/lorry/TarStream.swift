import Foundation
import LorryRegistry

/// An adapter's folder as a ustar archive, written part by part so that no whole file is ever held.
struct TarStream: Sendable {
    private struct Entry: Sendable {
        let file: URL
        let name: String
        let byteCount: Int
    }

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
        entries.reduce(TarWriter.end.count) { $0 + TarWriter.entryByteCount($1.byteCount) }
    }

    func write(_ send: ([UInt8]) async throws -> Void) async throws {
        for entry in entries {
            try await send(TarWriter.header(entry.name, byteCount: entry.byteCount))
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
            let padding = TarWriter.padding(entry.byteCount)
            if !padding.isEmpty { try await send(padding) }
        }
        try await send(TarWriter.end)
    }
}
