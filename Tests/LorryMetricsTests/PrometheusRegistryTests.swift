import LorryMetrics
import Testing

@Suite struct PrometheusRegistryTests {
    @Test func oneNameAndLabelSetIsOneHandle() {
        let registry = PrometheusRegistry()
        let first = registry.counter("c", labels: ["a": "1", "b": "2"])
        #expect(registry.counter("c_total", labels: ["b": "2", "a": "1"]) === first)
        #expect(registry.counter("c", labels: ["a": "1"]) !== first)
    }

    @Test func countsAddUpFromManyTasks() async throws {
        let registry = PrometheusRegistry()
        await withTaskGroup(of: Void.self) { group in
            for task in 0..<32 {
                group.addTask {
                    for step in 0..<1000 {
                        let labels: Labels = ["task": "\(task % 4)"]
                        registry.counter("whole", labels: labels).increment()
                        registry.counter("fractions").increment(by: 0.5)
                        registry.gauge("level").increment()
                        registry.histogram("h").observe(Double(step % 2))
                        if step % 250 == 0 { _ = registry.exposition(.openMetrics) }
                    }
                }
            }
        }
        let page = try ParsedExposition(registry.exposition(.prometheus), openMetrics: false)
        for task in 0..<4 { #expect(page.value("whole_total", ["task": "\(task)"]) == 8000) }
        #expect(page.value("fractions_total") == 16000)
        #expect(page.value("level") == 32000)
        #expect(page.value("h_count") == 32000)
        #expect(page.value("h_sum") == 16000)
        #expect(page.value("h_bucket", ["le": "0.001"]) == 16000)
    }

    @Test func observationsFallIntoTheirBuckets() throws {
        var configuration = PrometheusRegistry.Configuration()
        configuration.buckets["h"] = [-1, 0, 1]
        let registry = PrometheusRegistry(configuration: configuration)
        let histogram = registry.histogram("h", labels: ["le": "mine"])
        for value in [-2.0, -1, -0.5, 0, 0.5, 1, 1.5, .infinity] { histogram.observe(value) }
        #expect(histogram.count == 8)
        let page = try ParsedExposition(registry.exposition(.openMetrics), openMetrics: true)
        for (bound, count) in [("-1.0", 2.0), ("0.0", 4), ("1.0", 6), ("+Inf", 8)] {
            #expect(page.value("h_bucket", ["le": bound, "exported_le": "mine"]) == count)
        }
        histogram.observe(.nan)
        #expect(histogram.count == 9)
        #expect(histogram.sum.isNaN)
    }

    @Test func labelSetsBeyondTheLimitAreFoldedAndCounted() throws {
        var configuration = PrometheusRegistry.Configuration()
        configuration.maximumLabelSets["requests_total"] = 3
        configuration.closedLabels["requests_total"] = ["outcome"]
        let registry = PrometheusRegistry(configuration: configuration)
        for adapter in 0..<10 {
            for outcome in ["ok", "failed"] {
                registry.counter(
                    "requests", labels: ["adapter": "a\(adapter)", "outcome": outcome]
                )
                .increment()
            }
        }
        let page = try ParsedExposition(registry.exposition(.prometheus), openMetrics: false)
        #expect(page.families["requests_total"]?.samples.count == 5)
        #expect(page.value("requests_total", ["adapter": "a1", "outcome": "ok"]) == 1)
        #expect(page.value("requests_total", ["adapter": "_other", "outcome": "ok"]) == 8)
        #expect(page.value("requests_total", ["adapter": "_other", "outcome": "failed"]) == 9)
        #expect(page.value("lorry_metrics_folded_total", ["metric": "requests_total"]) == 17)
    }

    @Test func labelsThatWereWronglyCalledClosedStayBounded() {
        var configuration = PrometheusRegistry.Configuration()
        configuration.defaultMaximumLabelSets = 4
        configuration.closedLabels["g"] = ["path"]
        let registry = PrometheusRegistry(configuration: configuration)
        for path in 0..<100 { registry.gauge("g", labels: ["path": "\(path)"]).set(1) }
        let lines = registry.exposition(.prometheus).split(separator: "\n")
        #expect(lines.count { $0.hasPrefix("g{") } <= 9)
        #expect(lines.contains("g{path=\"_other\"} 1"))
    }

    @Test func collectorsReportCurrentValues() throws {
        let registry = PrometheusRegistry()
        let state = registry.gauge("state_source")
        registry.gauge("pool_bytes", labels: ["use": "own"]).set(1)
        registry.addCollector { scrape in
            scrape.gauge(
                "pool_bytes", help: "Pool.", labels: ["use": "kv"], state.value)
            scrape.counter("evictions", 7)
            scrape.gauge("info", labels: ["adapters": "\(Int(state.value))"], 1)
        }
        for value in [5.0, 6] {
            state.set(value)
            for format in [ExpositionFormat.prometheus, .openMetrics] {
                let page = try ParsedExposition(
                    registry.exposition(format), openMetrics: format == .openMetrics)
                #expect(page.value("pool_bytes", ["use": "kv"]) == value)
                #expect(page.value("pool_bytes", ["use": "own"]) == 1)
                #expect(page.value("evictions_total") == 7)
                #expect(
                    page.families["info"]?.samples.map(\.labels) == [
                        ["adapters": "\(Int(value))"]
                    ])
                #expect(page.families["pool_bytes"]?.help == "Pool.")
            }
        }
    }

    @Test func collectedSeriesAreBoundedToo() throws {
        var configuration = PrometheusRegistry.Configuration()
        configuration.maximumLabelSets["resident"] = 10
        let registry = PrometheusRegistry(configuration: configuration)
        registry.addCollector { scrape in
            for adapter in 0..<50 { scrape.gauge("resident", labels: ["a": "\(adapter)"], 1) }
        }
        let page = try ParsedExposition(registry.exposition(.prometheus), openMetrics: false)
        #expect(page.families["resident"]?.samples.count == 11)
        #expect(page.value("resident", ["a": "_other"]) == 40)
        #expect(page.value("lorry_metrics_folded_total", ["metric": "resident"]) == 40)
    }

    @Test func aNameKeepsItsFirstKind() throws {
        let registry = PrometheusRegistry()
        registry.counter("x").increment()
        registry.gauge("x").set(9)
        registry.histogram("x_total").observe(9)
        registry.addCollector { $0.gauge("x", 9) }
        let page = try ParsedExposition(registry.exposition(.openMetrics), openMetrics: true)
        #expect(page.value("x_total") == 1)
        #expect(page.families["x"]?.type == "counter")
        #expect(page.value("lorry_metrics_conflicts_total", ["metric": "x_total"]) == 2)
        // The collector's use is counted under the name it chose.
        #expect(page.value("lorry_metrics_conflicts_total", ["metric": "x"]) == 1)
    }

    @Test(arguments: [
        ("http.server.requests", "http_server_requests"), ("vllm:x", "vllm:x"),
        ("9lives", "_9lives"),
        ("ü-x", "__x"), ("", "_"),
    ])
    func namesAreBroughtIntoTheFormatsForm(given: String, written: String) throws {
        let registry = PrometheusRegistry()
        registry.gauge(given, labels: ["a:b": "1"]).set(2)
        let page = try ParsedExposition(registry.exposition(.prometheus), openMetrics: false)
        #expect(page.value(written, ["a_b": "1"]) == 2)
    }
}
