import Foundation
import HTTPTypes
import LorryAPI
import LorryEngine
import LorryMetrics
import Synchronization
import Testing

@Suite struct MetricsTests {
    @Test func requestsAndTokensByAdapter() async throws {
        let server = try TestServer(
            FakeEngine { request in
                request.promptTokens == [33]
                    ? .init(failure: .shuttingDown)
                    : .init(tokens: TestTokenizer.tokens("xyz"), cachedTokenCount: 1)
            })
        try await server.addAdapter("alpha")
        _ = try await server.complete(#"{"prompt": "ab"}"#)
        _ = try await server.complete(#"{"prompt": "ab", "model": "alpha", "stream": true}"#)
        _ = try await server.complete(#"{"prompt": "!", "model": "alpha"}"#)
        let text = try await server.get("/metrics").body
        for line in [
            #"lorry_requests_total{adapter="",outcome="succeeded",tenant="default"} 1"#,
            #"lorry_requests_total{adapter="alpha",outcome="succeeded",tenant="default"} 1"#,
            #"lorry_requests_total{adapter="alpha",outcome="failed",tenant="default"} 1"#,
            #"lorry_tokens_total{adapter="alpha",kind="completion",tenant="default"} 3"#,
            #"lorry_tokens_total{adapter="alpha",kind="prompt",tenant="default"} 3"#,
            #"lorry_tokens_total{adapter="alpha",kind="cached",tenant="default"} 1"#,
        ] {
            #expect(text.contains(line + "\n"), "\(line) in \(text)")
        }
    }

    @Test func formatByAccept() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        _ = try await server.complete(#"{"prompt": "ab"}"#)
        let plain = try await server.get("/metrics")
        #expect(plain.headers[.contentType]?.hasPrefix("text/plain; version=0.0.4") == true)
        let open = try await server.send(
            .get, "/metrics", headers: [.accept: "application/openmetrics-text; version=1.0.0"])
        #expect(open.headers[.contentType]?.hasPrefix("application/openmetrics-text") == true)
        #expect(open.body.hasSuffix("# EOF\n"))
    }

    @Test func engineFeedsVLLMsNames() throws {
        let registry = PrometheusRegistry(configuration: ServerMetrics.configuration())
        let metrics = EngineMetrics(registry: registry, modelName: "base")
        metrics.engineDidStep(
            StepObservation(
                promptTokenCount: 10, decodeTokenCount: 3, adapterCount: 2, plan: .milliseconds(1),
                run: .milliseconds(20), commit: .milliseconds(2)))
        metrics.engineDidEmitToken(
            TokenObservation(adapter: "a", latency: .milliseconds(30), isFirst: true))
        metrics.engineDidEmitToken(
            TokenObservation(adapter: "a", latency: .milliseconds(20), isFirst: false))
        var timings = GenerationTimings()
        timings.queue = .milliseconds(400)
        for outcome in [
            FinishObservation.Outcome.finished(.length), .finished(.cancelled),
            .finished(.stop(token: 1)), .failed(.shuttingDown),
        ] {
            metrics.engineDidFinish(
                FinishObservation(
                    id: "1", adapter: "a", outcome: outcome, promptTokenCount: 5,
                    completionTokenCount: 2, timings: timings, total: .seconds(1)))
        }
        metrics.engineDidLoadAdapter(name: "a", duration: .milliseconds(5), error: nil)
        metrics.engineDidLoadAdapter(name: "b", duration: .milliseconds(5), error: "gone")
        metrics.engineDidEvictAdapter(name: "a")
        let text = registry.exposition(.prometheus)
        let model = #"model_name="base""#
        for line in [
            "vllm:prompt_tokens_total{\(model)} 20", "vllm:generation_tokens_total{\(model)} 2",
            #"vllm:request_success_total{finished_reason="stop",\#(model)} 1"#,
            #"vllm:request_success_total{finished_reason="length",\#(model)} 1"#,
            #"vllm:request_success_total{finished_reason="abort",\#(model)} 1"#,
            #"vllm:request_success_total{finished_reason="error",\#(model)} 1"#,
            "vllm:time_to_first_token_seconds_count{\(model)} 1",
            "vllm:inter_token_latency_seconds_count{\(model)} 1",
            "vllm:e2e_request_latency_seconds_count{\(model)} 4",
            #"vllm:request_queue_time_seconds_bucket{\#(model),le="0.5"} 4"#,
            #"vllm:request_queue_time_seconds_bucket{\#(model),le="0.3"} 0"#,
            #"lorry_step_seconds_count{phase="run"} 1"#, "lorry_batch_tokens_sum 13",
            "lorry_batch_adapters_sum 2", "lorry_adapter_load_seconds_count 1",
            "lorry_adapter_load_failures_total 1", "lorry_adapter_evictions_total 1",
        ] {
            #expect(text.contains(line + "\n"), "\(line) in \(text)")
        }
    }

    @Test func gaugesAreReadAtEachScrape() throws {
        let registry = PrometheusRegistry()
        EngineGauges.add(to: registry, modelName: "base", blockTokenCount: 16) {
            var now = EngineStatistics()
            now.runningCount = 3
            now.waitingCount = 2
            now.kvBlockCount = 10
            now.usedKVBlockCount = 4
            now.cachedKVBlockCount = 2
            now.prefixCacheQueryCount = 90
            now.prefixCacheHitCount = 32
            now.kvBlockByteCount = 100
            now.runningAdapters = ["a", "b"]
            now.waitingAdapters = ["c"]
            now.maximumRunningCount = 8
            now.adaptersChanged = Date(timeIntervalSince1970: 12.5)
            now.memoryBudgetByteCount = 1000
            now.residentAdapterByteCount = 250
            now.residentAdapters = [
                .init(
                    id: AdapterVersionID("1"), name: "a", byteCount: 250, leaseCount: 1,
                    isPinned: false)
            ]
            now.preemptionCount = 7
            return now
        }
        let text = registry.exposition(.prometheus)
        let model = #"model_name="base""#
        for line in [
            "vllm:num_requests_running{\(model)} 3", "vllm:num_requests_waiting{\(model)} 2",
            "vllm:kv_cache_usage_perc{\(model)} 0.4", "vllm:num_preemptions_total{\(model)} 7",
            #"vllm:cache_config_info{block_size="16",\#(model),num_gpu_blocks="10"} 1"#,
            #"vllm:lora_requests_info{max_lora="8",running_lora_adapters="a,b",waiting_lora_adapters="c"} 12.5"#,
            #"lorry_adapter_resident{adapter="a"} 1"#, #"lorry_pool_bytes{use="kv"} 400"#,
            #"lorry_pool_bytes{use="adapters"} 250"#, #"lorry_pool_bytes{use="free"} 150"#,
            #"lorry_pool_bytes{use="cached"} 200"#,
            "vllm:prefix_cache_queries_total{\(model)} 90",
            "vllm:prefix_cache_hits_total{\(model)} 32",
        ] {
            #expect(text.contains(line + "\n"), "\(line) in \(text)")
        }
    }

    @Test func health() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        for path in ["/health", "/health/live", "/health/ready", "/health/startup", "/ping"] {
            let answer = try await server.get(path)
            #expect(answer.status == 200, "\(path)")
            #expect(answer.body == #"{"status":"ok"}"#)
        }
        #expect(try await server.get("/version").body == #"{"version":"1.2.3"}"#)
        server.engine.state.withLock { $0.isAlive = false }
        for path in ["/health", "/health/live", "/health/ready", "/ping"] {
            #expect(try await server.get(path).status == 503, "\(path)")
        }
        #expect(try await server.get("/health/startup").status == 200)
    }
}
