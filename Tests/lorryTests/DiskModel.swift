import Foundation

/// A folder as a log of changes makes it: what processes see, and what the disk is bound to have.
///
/// A disk keeps a file's bytes that were written before the file's last sync, and a folder's
/// entries that were made before the folder's last sync. Of the rest it keeps whatever it likes:
/// each block of a write by itself, each entry by itself. That is harsher than file systems with a
/// journal are: there a rename is never half there.
struct DiskModel {
    enum Fate {
        /// All of it: the process was killed, the system was not.
        case killed
        /// Nothing but what was synced.
        case onlySynced
        /// What was synced, and of the rest a share of the blocks and entries.
        case torn(share: Double, blockByteCount: Int)
    }

    private final class Node {
        enum Change {
            case write(Int, ArraySlice<UInt8>)
            case truncate(Int)
        }
        let isFolder: Bool
        var bytes: [UInt8] = []
        var syncedBytes: [UInt8] = []
        var changes: [Change] = []
        var entries: [String: Node] = [:]
        var syncedEntries: [String: Node] = [:]
        var entryChanges: [(name: String, node: Node?)] = []

        init(isFolder: Bool) { self.isFolder = isFolder }

        func set(_ name: String, _ node: Node?) {
            entries[name] = node
            entryChanges.append((name, node))
        }

        func apply(_ change: Change) {
            Self.apply(change, to: &bytes)
            changes.append(change)
        }

        func sync() {
            syncedBytes = bytes
            changes = []
            syncedEntries = entries
            entryChanges = []
        }

        static func apply(_ change: Change, to bytes: inout [UInt8]) {
            switch change {
            case .truncate(let count):
                if count < bytes.count {
                    bytes.removeLast(bytes.count - count)
                } else {
                    bytes += [UInt8](repeating: 0, count: count - bytes.count)
                }
            case .write(let offset, let data):
                let end = offset + data.count
                if bytes.count < end { bytes += [UInt8](repeating: 0, count: end - bytes.count) }
                bytes.replaceSubrange(offset..<end, with: data)
            }
        }
    }

    private let rootPath: String
    private let root = Node(isFolder: true)
    private var open: [Int32: Node] = [:]
    /// Changes that the model cannot tell, if there are any.
    private(set) var unknown: [String] = []
    private(set) var mapped: Set<String> = []

    /// - Parameter root: the folder as it is before the first record; all of it is on the disk.
    init(root url: URL) throws {
        rootPath = url.path
        try Self.read(url, into: root)
    }

    /// - Parameter root: a folder that was empty before the first record.
    init(emptyRoot root: URL) { rootPath = root.path }

    private static func read(_ url: URL, into node: Node) throws {
        for name in try FileManager.default.contentsOfDirectory(atPath: url.path) {
            let place = url.appending(path: name)
            var isFolder: ObjCBool = false
            _ = FileManager.default.fileExists(atPath: place.path, isDirectory: &isFolder)
            let child = Node(isFolder: isFolder.boolValue)
            if child.isFolder {
                try read(place, into: child)
            } else {
                child.bytes = try [UInt8](Data(contentsOf: place))
            }
            child.sync()
            node.entries[name] = child
        }
        node.sync()
    }

    private func parts(_ path: String) -> [String] {
        path.dropFirst(rootPath.count).split(separator: "/").map(String.init)
    }

    private func node(_ path: String) -> Node? {
        parts(path).reduce(root) { $0?.entries[$1] }
    }

    private func parent(_ path: String) throws -> (node: Node, name: String) {
        let parts = parts(path)
        let folder = parts.dropLast().reduce(root as Node?) { $0?.entries[$1] }
        guard let folder, let name = parts.last else {
            throw TestFailure("\(path) is in no folder of the model")
        }
        return (folder, name)
    }

    mutating func apply(_ record: DiskLog.Record) throws {
        switch record.kind {
        case .open:
            if record.second == 1 && node(record.path) == nil {
                let (folder, name) = try parent(record.path)
                folder.set(name, Node(isFolder: false))
            }
            guard let opened = node(record.path) else {
                throw TestFailure("\(record.path) was opened and is not in the model")
            }
            if record.second == 2 { opened.apply(.truncate(0)) }
            open[record.first] = opened
        case .write:
            open[record.first]?.apply(.write(Int(record.second), record.data))
        case .truncate: open[record.first]?.apply(.truncate(Int(record.second)))
        case .sync: open[record.first]?.sync()
        case .close: open[record.first] = nil
        case .rename:
            let (source, name) = try parent(record.path)
            let (target, newName) = try parent(record.text)
            let moved = source.entries[name]
            target.set(newName, moved)
            source.set(name, nil)
        case .unlink, .removeFolder:
            let (folder, name) = try parent(record.path)
            folder.set(name, nil)
        case .makeFolder:
            let (folder, name) = try parent(record.path)
            folder.set(name, Node(isFolder: true))
        case .mark: break
        case .map: mapped.insert(record.path)
        case .unknown: unknown.append("\(record.text) of \(record.path)")
        }
    }

    /// Every path with its bytes, folders with none, of what processes see.
    var visible: [String: [UInt8]] {
        var found: [String: [UInt8]] = [:]
        func walk(_ node: Node, _ path: String) {
            for (name, child) in node.entries {
                found[path + name] = child.bytes
                if child.isFolder { walk(child, path + name + "/") }
            }
        }
        walk(root, "")
        return found
    }

    /// Writes the folder as it might be found after `fate`.
    func write(
        to url: URL, after fate: Fate, using random: inout some RandomNumberGenerator
    ) throws {
        try write(root, to: url, fate, &random)
    }

    private func write(
        _ node: Node, to url: URL, _ fate: Fate, _ random: inout some RandomNumberGenerator
    ) throws {
        guard node.isFolder else {
            return try Data(bytes(of: node, fate, &random)).write(to: url)
        }
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        let entries = entries(of: node, fate, &random)
        for name in entries.keys.sorted() {
            if let child = entries[name] {
                try write(child, to: url.appending(path: name), fate, &random)
            }
        }
    }

    private func entries(
        of node: Node, _ fate: Fate, _ random: inout some RandomNumberGenerator
    ) -> [String: Node] {
        switch fate {
        case .killed: return node.entries
        case .onlySynced: return node.syncedEntries
        case .torn(let share, _):
            var entries = node.syncedEntries
            for change in node.entryChanges where Double.random(in: 0..<1, using: &random) < share {
                entries[change.name] = change.node
            }
            return entries
        }
    }

    private func bytes(
        of node: Node, _ fate: Fate, _ random: inout some RandomNumberGenerator
    ) -> [UInt8] {
        switch fate {
        case .killed: return node.bytes
        case .onlySynced: return node.syncedBytes
        case .torn(let share, let blockByteCount):
            var bytes = node.syncedBytes
            for change in node.changes {
                for piece in Self.pieces(of: change, blockByteCount)
                where Double.random(in: 0..<1, using: &random) < share {
                    Node.apply(piece, to: &bytes)
                }
            }
            return bytes
        }
    }

    /// A write block by block of the file.
    private static func pieces(of change: Node.Change, _ blockByteCount: Int) -> [Node.Change] {
        guard case .write(let offset, let data) = change else { return [change] }
        var pieces: [Node.Change] = []
        var start = offset
        while start < offset + data.count {
            let end = min((start / blockByteCount + 1) * blockByteCount, offset + data.count)
            let first = data.startIndex + start - offset
            pieces.append(.write(start, data[first..<first + end - start]))
            start = end
        }
        return pieces
    }
}
