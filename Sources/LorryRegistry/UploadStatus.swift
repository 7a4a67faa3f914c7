import Foundation
import Synchronization

/// How far an upload under way has come.
public struct UploadStatus: Sendable, Equatable {
    public enum Phase: String, Sendable, CaseIterable {
        case receiving
        /// All of it is here and is being checked and registered.
        case checking
    }

    /// Rises with each upload since the start.
    public let id: Int
    /// Nil where the upload was opened without saying what for.
    public let key: AdapterKey?
    public let started: Date
    /// As announced; nil where the client did not say.
    public let byteCount: Int?
    public internal(set) var receivedByteCount = 0
    public internal(set) var phase = Phase.receiving
}

/// The uploads under way.
struct OpenUploads {
    private var lastID = 0
    var statuses: [Int: UploadStatus] = [:]

    mutating func open(for key: AdapterKey?, byteCount: Int?) -> Int {
        lastID += 1
        statuses[lastID] = UploadStatus(
            id: lastID, key: key, started: RegistryDatabase.now(), byteCount: byteCount)
        return lastID
    }
}

/// A place among the uploads that may be open at once.
final class UploadSlot: Sendable {
    private let core: RegistryCore
    private let id: Int

    /// - Throws: `busy` if all are taken.
    init(_ core: RegistryCore, for key: AdapterKey?, byteCount: Int?) throws(RegistryError) {
        self.core = core
        let maxCount = core.configuration.maxOpenUploads
        let share = max(1, maxCount / 2)
        let (id, isShareUsed) = core.openUploads.withLock { uploads -> (Int?, Bool) in
            let own = uploads.statuses.values.count { $0.key?.tenant == key?.tenant }
            if key != nil, own >= share { return (nil, true) }
            guard uploads.statuses.count < maxCount else { return (nil, false) }
            return (uploads.open(for: key, byteCount: byteCount), false)
        }
        // 0 is no upload's, so that nothing is freed.
        self.id = id ?? 0
        guard id != nil else {
            throw RegistryError(
                .busy,
                isShareUsed
                    ? "\(share) uploads of the tenant are under way already; try again later"
                    : "\(maxCount) uploads are under way already; try again later")
        }
    }

    deinit { free() }

    var isFreed: Bool { core.openUploads.withLock { $0.statuses[id] == nil } }

    func free() { core.openUploads.withLock { $0.statuses[id] = nil } }

    func received(_ byteCount: Int) {
        core.openUploads.withLock { $0.statuses[id]?.receivedByteCount += byteCount }
    }

    func enter(_ phase: UploadStatus.Phase) {
        core.openUploads.withLock { $0.statuses[id]?.phase = phase }
    }
}
