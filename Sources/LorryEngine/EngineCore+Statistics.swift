extension EngineCore {
    /// Counts alone, so that they can be taken after every step; `roster` has the adapters.
    package var statistics: EngineStatistics {
        var statistics = EngineStatistics()
        statistics.runningCount = scheduler.running.count
        statistics.waitingCount = scheduler.queue.count
        statistics.kvBlockCount = pool.blockCount
        statistics.usedKVBlockCount = pool.kvBlockCount
        statistics.cachedKVBlockCount = pool.cachedBlockCount
        statistics.kvBlockByteCount = pool.blockByteCount
        statistics.memoryBudgetByteCount = configuration.memoryBudgetByteCount
        statistics.preemptionCount = scheduler.preemptionCount
        statistics.prefixCacheQueryCount = pool.prefixStatistics.queriedTokenCount
        statistics.prefixCacheHitCount = pool.prefixStatistics.foundTokenCount
        statistics.maximumRunningCount = configuration.maximumRunningCount
        return statistics
    }

    /// Which adapters are resident and used; may be asked on any thread.
    package var roster: AdapterRoster { residency.roster }
}
