import CoreMetrics

/// swift-metrics' backend: counters become counters, meters and recorders that do not aggregate
/// gauges, timers and aggregating recorders histograms. Timers are written in seconds and their
/// names end in `_seconds`. Characters that Prometheus does not allow in names become `_`.
extension PrometheusRegistry: MetricsFactory {
    public func makeCounter(
        label: String, dimensions: [(String, String)]
    ) -> any CounterHandler {
        counter(label, labels: Labels(dimensions))
    }

    public func makeFloatingPointCounter(
        label: String, dimensions: [(String, String)]
    ) -> any FloatingPointCounterHandler {
        FractionalCounter(counter: counter(label, labels: Labels(dimensions)))
    }

    public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        gauge(label, labels: Labels(dimensions))
    }

    public func makeRecorder(
        label: String, dimensions: [(String, String)], aggregate: Bool
    ) -> any RecorderHandler {
        aggregate
            ? histogram(label, labels: Labels(dimensions))
            : gauge(label, labels: Labels(dimensions))
    }

    public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        let name = label.hasSuffix("_seconds") ? label : label + "_seconds"
        return histogram(name, labels: Labels(dimensions))
    }

    public func destroyCounter(_ handler: any CounterHandler) { remove(handler) }
    public func destroyMeter(_ handler: any MeterHandler) { remove(handler) }
    public func destroyRecorder(_ handler: any RecorderHandler) { remove(handler) }
    public func destroyTimer(_ handler: any TimerHandler) { remove(handler) }

    public func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {
        if let handler = handler as? FractionalCounter { remove(handler.counter) }
    }
}

/// Both of swift-metrics' counter protocols ask for `reset`, but their `increment` differs in type
/// only; this one forwards fractions.
private final class FractionalCounter: FloatingPointCounterHandler {
    let counter: PrometheusRegistry.Counter

    init(counter: PrometheusRegistry.Counter) {
        self.counter = counter
    }

    func increment(by amount: Double) {
        // A library's negative amount must not end the process, and a counter cannot fall.
        if amount > 0 { counter.increment(by: amount) }
    }

    func reset() { counter.clear() }
}

extension PrometheusRegistry.Counter: CounterHandler {
    public func increment(by amount: Int64) {
        if amount > 0 { increment(by: Int(amount)) }
    }

    public func reset() { clear() }
}

extension PrometheusRegistry.Gauge: MeterHandler, RecorderHandler {
    public func set(_ value: Int64) { set(Double(value)) }
    public func record(_ value: Int64) { set(Double(value)) }
    public func record(_ value: Double) { set(value) }
    public func increment(by amount: Double) { add(amount) }
    public func decrement(by amount: Double) { add(-amount) }
}

extension PrometheusRegistry.Histogram: RecorderHandler, TimerHandler {
    public func record(_ value: Int64) { observe(Double(value)) }
    public func record(_ value: Double) { observe(value) }
    public func recordNanoseconds(_ duration: Int64) { observe(Double(duration) / 1e9) }
}
