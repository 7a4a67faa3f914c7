import Synchronization

/// What a family's `# TYPE` line says.
public enum MetricKind: String, Sendable {
    case counter, gauge, histogram
}

/// All time series of one metric name.
final class MetricFamily: Sendable {
    let name: String
    let kind: MetricKind
    private let limit: SeriesLimit
    private let state: Mutex<State>

    enum Series: Sendable {
        case counter(PrometheusRegistry.Counter)
        case gauge(PrometheusRegistry.Gauge)
        case histogram(PrometheusRegistry.Histogram)

        var identity: ObjectIdentifier {
            switch self {
            case .counter(let handle): ObjectIdentifier(handle)
            case .gauge(let handle): ObjectIdentifier(handle)
            case .histogram(let handle): ObjectIdentifier(handle)
            }
        }
    }

    private struct State {
        var help: String
        var series: [Labels: Series] = [:]
    }

    init(name: String, kind: MetricKind, help: String, limit: SeriesLimit) {
        self.name = name
        self.kind = kind
        self.limit = limit
        state = Mutex(State(help: help))
    }

    /// The first text that is not empty stays.
    func describe(_ help: String) {
        guard !help.isEmpty else { return }
        state.withLock { if $0.help.isEmpty { $0.help = help } }
    }

    /// The series of these labels, or the one it is folded into once the family is full.
    func series(_ labels: Labels, make: () -> Series) -> (series: Series, wasFolded: Bool) {
        state.withLock { state in
            if let known = state.series[labels] { return (known, false) }
            let admitted = limit.admitted(
                labels, count: state.series.count, isKnown: { state.series[$0] != nil })
            if admitted != labels, let known = state.series[admitted] { return (known, true) }
            let made = make()
            state.series[admitted] = made
            return (made, admitted != labels)
        }
    }

    func remove(_ identity: ObjectIdentifier) {
        state.withLock { state in
            if let labels = state.series.first(where: { $0.value.identity == identity })?.key {
                state.series[labels] = nil
            }
        }
    }

    func snapshot() -> (help: String, series: [Labels: Series]) {
        state.withLock { ($0.help, $0.series) }
    }
}

/// Bounds how many label sets a metric may have.
struct SeriesLimit: Sendable {
    let maximumCount: Int
    let closedLabels: Set<String>

    /// The labels themselves while there is room, then folded ones. Closed labels keep their values
    /// when folded; should they turn out not to be closed, everything is folded into one series.
    func admitted(_ labels: Labels, count: Int, isKnown: (Labels) -> Bool) -> Labels {
        if labels.isEmpty || count < maximumCount { return labels }
        let folded = labels.folded(keeping: closedLabels)
        if isKnown(folded) || count < 2 * maximumCount { return folded }
        return labels.folded(keeping: [])
    }
}
