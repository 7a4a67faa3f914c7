import CoreMetrics
import LorryMetrics
import Testing

@Suite struct MetricsBackendTests {
    let registry = PrometheusRegistry()

    private func page() throws -> ParsedExposition {
        try ParsedExposition(registry.exposition(.openMetrics), openMetrics: true)
    }

    @Test func everySwiftMetricsTypeIsWritten() throws {
        let dimensions = [("method", "GET")]
        Counter(label: "hb.requests", dimensions: dimensions, factory: registry).increment(by: 3)
        FloatingPointCounter(label: "joules", factory: registry).increment(by: 1.5)
        let meter = Meter(label: "level", factory: registry)
        meter.set(7)
        meter.increment(by: 1)
        meter.decrement(by: 0.5)
        Gauge(label: "plain.gauge", factory: registry).record(4)
        Recorder(label: "sizes", dimensions: [], aggregate: true, factory: registry).record(2)
        let timer = Timer(label: "took", factory: registry)
        timer.recordMilliseconds(1500)
        Timer(label: "wait_seconds", factory: registry).recordNanoseconds(250_000_000)
        let page = try page()
        #expect(page.value("hb_requests_total", ["method": "GET"]) == 3)
        #expect(page.value("joules_total") == 1.5)
        #expect(page.value("level") == 7.5)
        #expect(page.value("plain_gauge") == 4)
        #expect(page.value("sizes_sum") == 2)
        #expect(page.value("took_seconds_sum") == 1.5)
        #expect(page.value("took_seconds_bucket", ["le": "1.0"]) == 0)
        #expect(page.value("took_seconds_bucket", ["le": "2.5"]) == 1)
        #expect(page.value("wait_seconds_sum") == 0.25)
    }

    @Test func aLibrarysNegativeAmountChangesNothing() throws {
        let counter = Counter(label: "c", factory: registry)
        counter.increment(by: 2)
        counter.increment(by: -5)
        #expect(try page().value("c_total") == 2)
        counter.reset()
        #expect(try page().value("c_total") == 0)
    }

    @Test func destroyedMetricsAreNoLongerWritten() throws {
        let counter = Counter(label: "c", factory: registry)
        let fractions = FloatingPointCounter(label: "f", factory: registry)
        let timer = Timer(label: "t", factory: registry)
        counter.increment()
        fractions.increment(by: 1)
        timer.recordSeconds(1)
        #expect(try page().families.count == 3)
        counter.destroy()
        fractions.destroy()
        timer.destroy()
        #expect(try page().families.isEmpty)
    }
}
