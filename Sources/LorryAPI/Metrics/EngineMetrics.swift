import Foundation
import LorryEngine
import LorryMetrics

/// The engine's share of the figures: an observer on the engine thread, which only touches handles
/// that were made before.
public final class EngineMetrics: EngineObserver {
    private let registry: PrometheusRegistry
    private let promptTokens: PrometheusRegistry.Counter
    private let generationTokens: PrometheusRegistry.Counter
    private let firstToken: PrometheusRegistry.Histogram
    private let interToken: PrometheusRegistry.Histogram
    private let endToEnd: PrometheusRegistry.Histogram
    private let queueTime: PrometheusRegistry.Histogram
    private let successes: [String: PrometheusRegistry.Counter]
    private let phases: [PrometheusRegistry.Histogram]
    private let batchTokens: PrometheusRegistry.Histogram
    private let batchAdapters: PrometheusRegistry.Histogram
    private let loads: PrometheusRegistry.Histogram
    private let loadFailures: PrometheusRegistry.Counter
    private let evictions: PrometheusRegistry.Counter
    private let didCheckMemory: @Sendable (String?) -> Void

    static let finishReasons = ["stop", "length", "abort", "error"]

    /// - Parameters:
    ///   - modelName: the value of vLLM's `model_name` label.
    ///   - didCheckMemory: is told what is wrong with the memory when the engine has stopped.
    public init(
        registry: PrometheusRegistry, modelName: String,
        didCheckMemory: @escaping @Sendable (String?) -> Void = { _ in }
    ) {
        self.didCheckMemory = didCheckMemory
        let model: Labels = ["model_name": modelName]
        self.registry = registry
        promptTokens = registry.counter(
            "vllm:prompt_tokens_total", help: "Prompt tokens computed or reused.", labels: model)
        generationTokens = registry.counter(
            "vllm:generation_tokens_total", help: "Tokens generated.", labels: model)
        firstToken = registry.histogram(
            "vllm:time_to_first_token_seconds", help: "From submission to the first token.",
            labels: model)
        interToken = registry.histogram(
            "vllm:inter_token_latency_seconds", help: "Between two tokens of a sequence.",
            labels: model)
        endToEnd = registry.histogram(
            "vllm:e2e_request_latency_seconds", help: "From submission to the end of a sequence.",
            labels: model)
        queueTime = registry.histogram(
            "vllm:request_queue_time_seconds", help: "From submission to the first step.",
            labels: model)
        var successes: [String: PrometheusRegistry.Counter] = [:]
        for reason in Self.finishReasons {
            successes[reason] = registry.counter(
                "vllm:request_success_total", help: "Sequences ended, by reason.",
                labels: ["model_name": modelName, "finished_reason": reason])
        }
        self.successes = successes
        phases = ["plan", "run", "commit"].map {
            registry.histogram(
                "lorry_step_seconds", help: "Time of a step, by phase.", labels: ["phase": $0])
        }
        batchTokens = registry.histogram("lorry_batch_tokens", help: "Tokens of a step.")
        batchAdapters = registry.histogram(
            "lorry_batch_adapters", help: "Distinct adapters of a step.")
        loads = registry.histogram(
            "lorry_adapter_load_seconds", help: "Bringing an adapter into memory.")
        loadFailures = registry.counter(
            "lorry_adapter_load_failures_total", help: "Adapters that could not be loaded.")
        evictions = registry.counter(
            "lorry_adapter_evictions_total", help: "Adapters that gave up their memory.")
    }

    public func engineDidStep(_ step: StepObservation) {
        for (histogram, duration) in zip(phases, [step.plan, step.run, step.commit]) {
            histogram.observe(duration)
        }
        batchTokens.observe(Double(step.promptTokenCount + step.decodeTokenCount))
        batchAdapters.observe(Double(step.adapterCount))
    }

    public func engineDidEmitToken(_ token: TokenObservation) {
        generationTokens.increment()
        (token.isFirst ? firstToken : interToken).observe(token.latency)
    }

    public func engineDidFinish(_ request: FinishObservation) {
        promptTokens.increment(by: request.promptTokenCount)
        endToEnd.observe(request.total)
        queueTime.observe(request.timings.queue)
        let reason =
            switch request.outcome {
            case .finished(.stop), .finished(.readerSatisfied): "stop"
            case .finished(.length): "length"
            case .finished(.cancelled): "abort"
            case .failed: "error"
            }
        successes[reason]?.increment()
    }

    public func engineDidLoadAdapter(name: String, duration: Duration, error: String?) {
        if error == nil { loads.observe(duration) } else { loadFailures.increment() }
    }

    public func engineDidCheckMemory(fault: String?) { didCheckMemory(fault) }

    public func engineDidEvictAdapter(name: String) { evictions.increment() }
}
