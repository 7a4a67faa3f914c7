import LorryEngine
import LorryMetrics

/// Every figure that Lorry publishes about serving: vLLM's names, which dashboards and gateways
/// know, and its own. Fed by the engine's observer calls, by the routes, and at scrape time by a
/// snapshot of the engine.
public final class ServerMetrics: Sendable {
    public let registry: PrometheusRegistry
    private let modelName: String

    /// Buckets and bounds that the registry has to be made with.
    public static func configuration() -> PrometheusRegistry.Configuration {
        var configuration = PrometheusRegistry.Configuration()
        let requestSeconds: [Double] = [
            0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920,
            7680,
        ]
        configuration.buckets = [
            "vllm:time_to_first_token_seconds": [
                0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5,
                10, 20, 40, 80, 160, 640, 2560,
            ],
            "vllm:inter_token_latency_seconds": [
                0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
                20, 40, 80,
            ],
            "vllm:e2e_request_latency_seconds": requestSeconds,
            "vllm:request_queue_time_seconds": requestSeconds,
            "lorry_step_seconds": [
                0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                2.5, 5,
            ],
            "lorry_batch_tokens": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096],
            "lorry_batch_adapters": [0, 1, 2, 4, 8, 16, 32, 64, 128, 256],
        ]
        configuration.closedLabels = [
            "lorry_requests_total": ["outcome"], "lorry_tokens_total": ["kind"],
        ]
        return configuration
    }

    public init(registry: PrometheusRegistry, modelName: String) {
        self.registry = registry
        self.modelName = modelName
    }

    /// The file of API keys was read again, or was found invalid.
    public func keysRead(succeeded: Bool) {
        registry.counter(
            "lorry_key_reloads_total", help: "Readings of a changed file of API keys.",
            labels: ["outcome": succeeded ? "succeeded" : "failed"]
        ).increment()
    }

    func requestEnded(
        adapter: String, tenant: String, outcome: RequestAccount.Outcome, usage: TokenUsage
    ) {
        let labels = [("adapter", adapter), ("tenant", tenant)]
        registry.counter(
            "lorry_requests_total", help: "Generation requests by how they ended.",
            labels: Labels(labels + [("outcome", outcome.rawValue)])
        ).increment()
        let kinds = [
            ("prompt", usage.promptTokenCount), ("completion", usage.completionTokenCount),
            ("cached", usage.cachedTokenCount),
        ]
        for (kind, count) in kinds where count > 0 {
            registry.counter(
                "lorry_tokens_total", help: "Tokens by kind; cached ones are prompt tokens too.",
                labels: Labels(labels + [("kind", kind)])
            ).increment(by: count)
        }
    }
}
