import Foundation
import Testing

extension EndToEndTests {
    struct MetricsTests {
        @Test func countersTellWhatHappened() async throws {
            try await LorryServer.run { server in
                let client = server.client
                let prompts = [1, 53, 70, 81]
                for model in ["tales-5m", "pirate", "pirate"] {
                    let answer = try await client.complete(Ask(model, .tokens(prompts), 10))
                    #expect(answer.usage?.promptTokens == 4)
                    #expect(answer.usage?.completionTokens == 10)
                }
                _ = try await client.streamed(Ask("shout", .tokens(prompts), 5))
                #expect(
                    try await client.post("/v1/completions", Ask("nobody", .text("x"), 1)).status
                        == 404)

                let page = try await client.metricsAtRest()
                #expect(page.isAtRest)
                #expect(
                    page.value("vllm:request_success_total", ["finished_reason": "length"]) == 4)
                #expect(page.value("vllm:request_success_total", ["finished_reason": "stop"]) == 0)
                #expect(page.value("vllm:prompt_tokens_total", ["model_name": "tales-5m"]) == 16)
                #expect(page.value("vllm:generation_tokens_total") == 35)
                #expect(page.value("vllm:time_to_first_token_seconds_count") == 4)
                #expect(page.value("vllm:inter_token_latency_seconds_count") == 31)
                #expect(page.value("vllm:e2e_request_latency_seconds_count") == 4)
                #expect(page.value("vllm:request_queue_time_seconds_count") == 4)
                #expect(page.value("vllm:num_preemptions_total") == 0)
                #expect(page.value("vllm:cache_config_info", ["block_size": "16"]) == 1)
                for (adapter, count, tokens) in [("pirate", 2.0, 20.0), ("shout", 1, 5)] {
                    let labels = ["adapter": adapter]
                    #expect(page.sum("lorry_requests_total", labels) == count)
                    #expect(
                        page.value(
                            "lorry_requests_total",
                            labels.merging(["outcome": "succeeded"]) { $1 }) == count)
                    #expect(
                        page.value(
                            "lorry_tokens_total", labels.merging(["kind": "completion"]) { $1 })
                            == tokens)
                    #expect(page.value("lorry_adapter_resident", labels) == 1)
                }
                #expect(page.value("lorry_adapter_resident", ["adapter": "telegram"]) == nil)
                #expect(page.value("lorry_adapter_load_seconds_count") == 2)
                #expect(page.sum("lorry_requests_total") == 4)
                #expect(try #require(page.value("lorry_pool_bytes", ["use": "adapters"])) > 0)
                #expect(page.sum("lorry_pool_bytes") == Double(256 << 20))
                #expect(
                    page.value("lorry_step_seconds_count", ["phase": "run"])
                        == page.value("lorry_batch_tokens_count"))
            }
        }

        @Test func gaugesTellWhatHappensNow() async throws {
            try await LorryServer.run { server in
                let client = server.client
                let recorder = StreamedAnswer.Recorder()
                let ask = Ask("pirate", .text("Once upon a time"), 450)
                try await client.stream(ask) { event in
                    let isFirst = recorder.tokenCount == 0
                    try recorder.record(event)
                    guard isFirst else { return true }
                    // A busy engine publishes its figures every few steps.
                    for _ in 0..<1000 {
                        let page = try await client.metrics()
                        guard page.value("vllm:num_requests_running") == 1 else { continue }
                        #expect(
                            page.value(
                                "vllm:lora_requests_info", ["running_lora_adapters": "pirate"]
                            )
                            .map { $0 > 1_600_000_000 } == true)
                        #expect(try #require(page.value("vllm:kv_cache_usage_perc")) > 0)
                        #expect(try #require(page.value("lorry_http_streams")) >= 2)
                        return true
                    }
                    Issue.record("the running request was never seen")
                    return false
                }
                #expect(try await client.metricsAtRest().isAtRest)
            }
        }

        @Test func openMetricsIsGivenWhenAskedFor() async throws {
            try await LorryServer.run { server in
                let plain = try await server.client.get("/metrics")
                #expect(plain.header("content-type")?.hasPrefix("text/plain") == true)
                let open = try await server.client.get(
                    "/metrics",
                    headers: [("accept", "application/openmetrics-text;version=1.0.0,*/*;q=0.1")])
                #expect(
                    open.header("content-type")?
                        .hasPrefix("application/openmetrics-text") == true)
                #expect(open.text.hasSuffix("# EOF\n"))
                #expect(!plain.text.contains("# EOF"))
            }
        }
    }
}
