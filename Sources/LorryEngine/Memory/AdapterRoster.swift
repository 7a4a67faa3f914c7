import Foundation
import Synchronization

/// Which adapters are resident and used, for whoever asks, on any thread. The engine thread notes
/// each change; sorting and gathering is done by those who ask.
package final class AdapterRoster: Sendable {
    private struct Row {
        var name: String
        var byteCount: Int?
        var isPinned = false
        var waitingCount = 0
        var runningCount = 0
    }

    private struct State {
        var rows: [AdapterVersionID: Row] = [:]
        var usersChanged = Date(timeIntervalSince1970: 0)
    }

    /// `State` is guarded by this mutex.
    private let state = Mutex(State())

    package init() {}

    /// - Parameter name: needed where nobody used the adapter before.
    func setUsers(of id: AdapterVersionID, name: String?, waiting: Int, running: Int) {
        state.withLock { state in
            guard var row = state.rows[id] ?? name.map({ Row(name: $0) }) else { return }
            let isSame =
                (row.waitingCount > 0) == (waiting > 0) && (row.runningCount > 0) == (running > 0)
            if !isSame { state.usersChanged = Date() }
            row.waitingCount = waiting
            row.runningCount = running
            state.rows[id] = waiting == 0 && running == 0 && row.byteCount == nil ? nil : row
        }
    }

    func setResident(_ id: AdapterVersionID, name: String, byteCount: Int, isPinned: Bool) {
        state.withLock { state in
            var row = state.rows[id] ?? Row(name: name)
            row.byteCount = byteCount
            row.isPinned = isPinned
            state.rows[id] = row
        }
    }

    func setPinned(_ id: AdapterVersionID, _ isPinned: Bool) {
        state.withLock { $0.rows[id]?.isPinned = isPinned }
    }

    func setEvicted(_ id: AdapterVersionID) {
        state.withLock { state in
            state.rows[id]?.byteCount = nil
            guard let row = state.rows[id], row.waitingCount == 0, row.runningCount == 0 else {
                return
            }
            state.rows[id] = nil
        }
    }

    /// Fills in what the roster knows.
    package func describe(_ statistics: inout EngineStatistics) {
        let (rows, changed) = state.withLock { ($0.rows, $0.usersChanged) }
        statistics.adaptersChanged = changed
        statistics.runningAdapters = Self.names(rows.values) { $0.runningCount > 0 }
        statistics.waitingAdapters = Self.names(rows.values) { $0.waitingCount > 0 }
        statistics.residentAdapters = rows.compactMap { id, row in
            row.byteCount.map {
                .init(
                    id: id, name: row.name, byteCount: $0, leaseCount: row.runningCount,
                    isPinned: row.isPinned)
            }
        }.sorted { ($0.name, $0.id.digest) < ($1.name, $1.id.digest) }
        statistics.residentAdapterByteCount =
            statistics.residentAdapters.reduce(0) { $0 + $1.byteCount }
    }

    private static func names(
        _ rows: Dictionary<AdapterVersionID, Row>.Values, _ isWanted: (Row) -> Bool
    ) -> [String] {
        Set(rows.lazy.filter(isWanted).map(\.name)).sorted()
    }
}
