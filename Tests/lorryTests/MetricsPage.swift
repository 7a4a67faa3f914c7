import Testing

/// What `GET /metrics` says: each sample's value by its name and labels as written.
struct MetricsPage: Sendable {
    private let samples: [String: Double]

    init(_ text: String) {
        var samples: [String: Double] = [:]
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            guard let space = line.lastIndex(of: " ") else { continue }
            samples[String(line[..<space])] = Double(line[line.index(after: space)...])
        }
        self.samples = samples
    }

    /// The sample with this name and at least these labels; nil where there is none.
    func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
        samples.first { key, _ in
            key.prefix { $0 != "{" } == name
                && labels.allSatisfy { key.contains("\($0.key)=\"\($0.value)\"") }
        }?.value
    }

    /// All samples of a name together.
    func sum(_ name: String, _ labels: [String: String] = [:]) -> Double {
        samples.filter { key, _ in
            key.prefix { $0 != "{" } == name
                && labels.allSatisfy { key.contains("\($0.key)=\"\($0.value)\"") }
        }.values.reduce(0, +)
    }

    /// The samples of a name, as written.
    func keys(_ name: String) -> [String] {
        samples.keys.filter { $0.prefix { $0 != "{" } == name }.sorted()
    }

    /// Whether nothing runs, waits or holds memory for keys and values.
    var isAtRest: Bool {
        let gauges = [
            value("vllm:num_requests_running"), value("vllm:num_requests_waiting"),
            value("vllm:kv_cache_usage_perc"), value("lorry_pool_bytes", ["use": "kv"]),
        ]
        return gauges.allSatisfy { $0 == 0 }
            && value(
                "vllm:lora_requests_info",
                ["running_lora_adapters": "", "waiting_lora_adapters": ""]) != nil
    }
}

extension Client {
    func metrics() async throws -> MetricsPage { MetricsPage(try await get("/metrics").text) }

    /// The metrics once the engine is at rest, or what they were when it did not come to rest.
    func metricsAtRest() async throws -> MetricsPage {
        for _ in 0..<1000 {
            let page = try await metrics()
            if page.isAtRest { return page }
            try await Task.sleep(for: .milliseconds(10))
        }
        return try await metrics()
    }
}
