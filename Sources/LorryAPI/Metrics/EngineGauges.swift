import Foundation
import LorryEngine
import LorryMetrics

/// Reads the engine's present state at each scrape.
public enum EngineGauges {
    /// - Parameter statistics: a snapshot of the engine; called on the scraping thread.
    public static func add(
        to registry: PrometheusRegistry, modelName: String, blockTokenCount: Int,
        statistics: @escaping @Sendable () -> EngineStatistics
    ) {
        registry.addCollector { scrape in
            let now = statistics()
            addRequests(now, modelName, to: &scrape)
            addMemory(now, modelName, blockTokenCount, to: &scrape)
        }
    }

    private static func addRequests(
        _ now: EngineStatistics, _ modelName: String, to scrape: inout Scrape
    ) {
        let model: Labels = ["model_name": modelName]
        scrape.gauge(
            "vllm:num_requests_running", help: "Sequences in the running batch.", labels: model,
            Double(now.runningCount))
        scrape.gauge(
            "vllm:num_requests_waiting", help: "Sequences that wait for room or their adapter.",
            labels: model, Double(now.waitingCount))
        scrape.gauge(
            "vllm:lora_requests_info", help: "Adapters in use; the value is the last change.",
            labels: [
                "max_lora": "\(now.maximumRunningCount)",
                "running_lora_adapters": now.runningAdapters.joined(separator: ","),
                "waiting_lora_adapters": now.waitingAdapters.joined(separator: ","),
            ], now.adaptersChanged.timeIntervalSince1970)
        scrape.counter(
            "vllm:num_preemptions_total", help: "Sequences whose key/value blocks were taken back.",
            labels: model, Double(now.preemptionCount))
        scrape.counter(
            "vllm:prefix_cache_queries_total", help: "Prompt tokens looked up in the prefix cache.",
            labels: model, Double(now.prefixCacheQueryCount))
        scrape.counter(
            "vllm:prefix_cache_hits_total", help: "Prompt tokens found in the prefix cache.",
            labels: model, Double(now.prefixCacheHitCount))
    }

    private static func addMemory(
        _ now: EngineStatistics, _ modelName: String, _ blockTokenCount: Int,
        to scrape: inout Scrape
    ) {
        let used =
            now.kvBlockCount == 0 ? 0 : Double(now.usedKVBlockCount) / Double(now.kvBlockCount)
        scrape.gauge(
            "vllm:kv_cache_usage_perc", help: "Key/value blocks in use, 1 for all.",
            labels: ["model_name": modelName], used)
        scrape.gauge(
            "vllm:cache_config_info", help: "How the key/value cache is laid out.",
            labels: [
                "model_name": modelName, "block_size": "\(blockTokenCount)",
                "num_gpu_blocks": "\(now.kvBlockCount)",
            ], 1)
        for adapter in now.residentAdapters {
            scrape.gauge(
                "lorry_adapter_resident", help: "Adapters in memory.",
                labels: ["adapter": adapter.name], 1)
        }
        let keyValueByteCount = now.usedKVBlockCount * now.kvBlockByteCount
        let cachedByteCount = now.cachedKVBlockCount * now.kvBlockByteCount
        let usedByteCount = keyValueByteCount + cachedByteCount + now.residentAdapterByteCount
        let uses = [
            ("kv", keyValueByteCount), ("cached", cachedByteCount),
            ("adapters", now.residentAdapterByteCount),
            ("free", max(0, now.memoryBudgetByteCount - usedByteCount)),
        ]
        for (use, byteCount) in uses {
            scrape.gauge(
                "lorry_pool_bytes", help: "The memory budget by use.", labels: ["use": use],
                Double(byteCount))
        }
    }
}
