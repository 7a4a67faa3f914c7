import LorryMetrics
import Testing

@Suite struct ExpositionTests {
    static func sampleRegistry() -> PrometheusRegistry {
        var configuration = PrometheusRegistry.Configuration()
        configuration.buckets["vllm:e2e_request_latency_seconds"] = [0.5, 1, 2.5]
        let registry = PrometheusRegistry(configuration: configuration)
        registry.gauge(
            "vllm:num_requests_running", help: "Running.", labels: ["model_name": "tales"]
        ).set(3)
        registry.counter("vllm:prompt_tokens_total", help: "Prompt tokens.").increment(by: 12)
        registry.counter("lorry_seconds", labels: ["kind": "b"]).increment(by: 0.25)
        registry.counter("lorry_seconds", labels: ["kind": "a"]).increment()
        let latency = registry.histogram("vllm:e2e_request_latency_seconds", help: "Latency.")
        latency.observe(0.5)
        latency.observe(.milliseconds(2250))
        latency.observe(7)
        return registry
    }

    @Test func prometheusTextIsExact() {
        let expected = """
            # TYPE lorry_seconds_total counter
            lorry_seconds_total{kind="a"} 1
            lorry_seconds_total{kind="b"} 0.25
            # HELP vllm:e2e_request_latency_seconds Latency.
            # TYPE vllm:e2e_request_latency_seconds histogram
            vllm:e2e_request_latency_seconds_bucket{le="0.5"} 1
            vllm:e2e_request_latency_seconds_bucket{le="1.0"} 1
            vllm:e2e_request_latency_seconds_bucket{le="2.5"} 2
            vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 3
            vllm:e2e_request_latency_seconds_sum 9.75
            vllm:e2e_request_latency_seconds_count 3
            # HELP vllm:num_requests_running Running.
            # TYPE vllm:num_requests_running gauge
            vllm:num_requests_running{model_name="tales"} 3
            # HELP vllm:prompt_tokens_total Prompt tokens.
            # TYPE vllm:prompt_tokens_total counter
            vllm:prompt_tokens_total 12

            """
        #expect(Self.sampleRegistry().exposition(.prometheus) == expected)
    }

    @Test func openMetricsTextIsExact() {
        let expected = """
            # TYPE lorry_seconds counter
            lorry_seconds_total{kind="a"} 1
            lorry_seconds_total{kind="b"} 0.25
            # HELP vllm:e2e_request_latency_seconds Latency.
            # TYPE vllm:e2e_request_latency_seconds histogram
            vllm:e2e_request_latency_seconds_bucket{le="0.5"} 1
            vllm:e2e_request_latency_seconds_bucket{le="1.0"} 1
            vllm:e2e_request_latency_seconds_bucket{le="2.5"} 2
            vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 3
            vllm:e2e_request_latency_seconds_sum 9.75
            vllm:e2e_request_latency_seconds_count 3
            # HELP vllm:num_requests_running Running.
            # TYPE vllm:num_requests_running gauge
            vllm:num_requests_running{model_name="tales"} 3
            # HELP vllm:prompt_tokens Prompt tokens.
            # TYPE vllm:prompt_tokens counter
            vllm:prompt_tokens_total 12
            # EOF

            """
        #expect(Self.sampleRegistry().exposition(.openMetrics) == expected)
    }

    @Test(arguments: [
        "plain", "", "back\\slash", "quote\"d", "two\nlines", "\r\n", "\\n", "ünïcode ✓ {},=",
        "ends with \\",
    ])
    func labelValuesAndHelpSurviveEscaping(text: String) throws {
        let registry = PrometheusRegistry()
        registry.gauge("g", help: "h" + text, labels: ["l": text]).set(1)
        for format in [ExpositionFormat.prometheus, .openMetrics] {
            let page = registry.exposition(format)
            let parsed = try ParsedExposition(page, openMetrics: format == .openMetrics)
            #expect(parsed.value("g", ["l": text]) == 1)
            #expect(parsed.families["g"]?.help == "h" + text)
        }
    }

    @Test func quotesInHelpAreEscapedInOpenMetricsOnly() {
        let registry = PrometheusRegistry()
        registry.gauge("g", help: "a \"b\"").set(1)
        #expect(registry.exposition(.prometheus).contains("# HELP g a \"b\"\n"))
        #expect(registry.exposition(.openMetrics).contains("# HELP g a \\\"b\\\"\n"))
    }

    @Test(arguments: [
        (Double.nan, "NaN"), (.infinity, "+Inf"), (-.infinity, "-Inf"), (0, "0"), (-0.5, "-0.5"),
        (1e300, "1e+300"), (9_007_199_254_740_992, "9007199254740992"), (1e-7, "1e-07"),
    ])
    func numbersAreWrittenAsTheFormatAsks(value: Double, text: String) {
        let registry = PrometheusRegistry()
        registry.gauge("g").set(value)
        #expect(registry.exposition(.prometheus) == "# TYPE g gauge\ng \(text)\n")
    }

    @Test func emptyRegistryIsAValidPage() throws {
        let registry = PrometheusRegistry()
        #expect(registry.exposition(.prometheus) == "")
        #expect(registry.exposition(.openMetrics) == "# EOF\n")
        #expect(try ParsedExposition("# EOF\n", openMetrics: true).families.isEmpty)
    }

    @Test(
        arguments: [
            (nil, ExpositionFormat.prometheus),
            ("*/*", .prometheus),
            ("text/plain", .prometheus),
            ("application/openmetrics-text", .openMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
                .openMetrics
            ),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.9", .prometheus),
            ("application/openmetrics-text;q=0", .prometheus),
            ("application/openmetrics-text;q=nonsense", .prometheus),
            ("TEXT/PLAIN; q=0.5, Application/OpenMetrics-Text", .openMetrics),
        ] as [(String?, ExpositionFormat)])
    func acceptHeaderChoosesTheFormat(accept: String?, format: ExpositionFormat) {
        #expect(ExpositionFormat(accept: accept) == format)
    }

    @Test func theParserOfTheseTestsIsStrict() {
        for bad in [
            "g 1", "# TYPE g gauge\n", "# TYPE g gauge\ng 1\ng 2\n", "# TYPE g gauge\ng{a=\"1} 2\n",
            "# TYPE g gauge\nh 1\n", "# TYPE g thing\ng 1\n", "# TYPE 1g gauge\n1g 1\n",
            "# TYPE g gauge\ng one\n", "# TYPE g gauge\ng 1\n# TYPE g gauge\ng 2\n",
            "# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_sum 1\nh_count 1\n",
        ] {
            #expect(throws: ParsedExposition.Malformed.self) {
                try ParsedExposition(bad, openMetrics: false)
            }
        }
    }
}
