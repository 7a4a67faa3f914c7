import Foundation

extension EngineCore {
    package func statistics(previous: EngineStatistics) -> EngineStatistics {
        var statistics = EngineStatistics()
        statistics.runningCount = scheduler.running.count
        statistics.waitingCount = scheduler.waiting.count
        statistics.kvBlockCount = pool.blockCount
        statistics.usedKVBlockCount = pool.kvBlockCount
        statistics.kvBlockByteCount = pool.blockByteCount
        // Thousands may wait: their names are gathered again only when somebody came or went.
        if namedChangeCount == scheduler.changeCount {
            statistics.runningAdapters = previous.runningAdapters
            statistics.waitingAdapters = previous.waitingAdapters
        } else {
            namedChangeCount = scheduler.changeCount
            statistics.runningAdapters = Self.names(scheduler.running)
            statistics.waitingAdapters = Self.names(scheduler.waiting)
        }
        let isUnchanged =
            previous.runningAdapters == statistics.runningAdapters
            && previous.waitingAdapters == statistics.waitingAdapters
        statistics.adaptersChanged = isUnchanged ? previous.adaptersChanged : Date()
        statistics.residentAdapters = residency.residents { id in
            scheduler.running.reduce(0) { $0 + ($1.adapterID == id ? 1 : 0) }
        }
        statistics.residentAdapterByteCount =
            statistics.residentAdapters.reduce(0) { $0 + $1.byteCount }
        statistics.memoryBudgetByteCount = configuration.memoryBudgetByteCount
        statistics.preemptionCount = scheduler.preemptionCount
        statistics.maximumRunningCount = configuration.maximumRunningCount
        return statistics
    }

    private static func names(_ sequences: [TokenSequence]) -> [String] {
        Set(sequences.compactMap { $0.request.adapter?.name }).sorted()
    }
}
