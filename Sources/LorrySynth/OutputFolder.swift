import Foundation

/// A folder that appears whole or not at all: written beside its place, then renamed.
enum OutputFolder {
    /// - Throws: `SynthError` when something that is not an empty folder is in the way, and
    ///   whatever `fill` throws, after removing what it had written.
    static func write(
        _ folder: URL, fill: (_ temporary: URL) async throws -> Void
    ) async throws {
        let manager = FileManager.default
        let parent = folder.standardizedFileURL.deletingLastPathComponent()
        var isFolder: ObjCBool = false
        let exists = manager.fileExists(atPath: folder.path, isDirectory: &isFolder)
        if exists {
            guard isFolder.boolValue,
                try manager.contentsOfDirectory(atPath: folder.path).isEmpty
            else {
                throw SynthError("\(folder.path) exists and is not an empty folder")
            }
        }
        try manager.createDirectory(at: parent, withIntermediateDirectories: true)
        let temporary = parent.appending(
            path: ".\(folder.lastPathComponent).\(UUID().uuidString)", directoryHint: .isDirectory)
        try manager.createDirectory(at: temporary, withIntermediateDirectories: false)
        do {
            try await fill(temporary)
            if exists { try manager.removeItem(at: folder) }
            try manager.moveItem(at: temporary, to: folder)
        } catch {
            try? manager.removeItem(at: temporary)
            throw error
        }
    }

    static func writeJSON(_ object: [String: Any], to file: URL) throws {
        var json = try JSONSerialization.data(
            withJSONObject: object, options: [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes])
        json.append(UInt8(ascii: "\n"))
        try json.write(to: file)
    }
}
