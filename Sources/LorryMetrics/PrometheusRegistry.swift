import Synchronization

/// Holds every metric of the process and writes them in Prometheus' or OpenMetrics' text format.
///
/// Handles come from ``counter(_:help:labels:)`` and its siblings, or from swift-metrics after
/// `MetricsSystem.bootstrap(registry)`. Asking twice for one name and label set gives the same
/// handle; callers on a hot path keep theirs. Values that live elsewhere are read at scrape time by
/// a collector, see ``addCollector(_:)``.
///
/// Names may contain colons (`vllm:num_requests_running`). A counter's name may be given with or
/// without `_total`; it is always written with it.
public final class PrometheusRegistry: Sendable {
    /// Choices per metric; names as they are written, counters with `_total`.
    public struct Configuration: Sendable {
        /// Upper bounds of histogram buckets, ascending and finite, by metric name.
        public var buckets: [String: [Double]] = [:]
        /// Bounds for the rest: 1 ms to 60 s.
        public var defaultBuckets: [Double] = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
        ]
        /// Label sets a metric may have before further ones are folded, by metric name.
        public var maximumLabelSets: [String: Int] = [:]
        public var defaultMaximumLabelSets = 1000
        /// Labels that only ever have a few values, such as an outcome; they keep their value when
        /// the others of their set become `_other`. By metric name.
        public var closedLabels: [String: Set<String>] = [:]
        /// `# HELP` texts for metrics that are made without one, by metric name.
        public var help: [String: String] = [:]

        public init() {}
    }

    private let configuration: Configuration
    private let state = Mutex(State())

    private struct State {
        /// By ``MetricName/familyKey(_:)``.
        var families: [String: MetricFamily] = [:]
        var collectors: [@Sendable (inout Scrape) -> Void] = []
    }

    static let foldedName = "lorry_metrics_folded_total"
    static let conflictsName = "lorry_metrics_conflicts_total"

    public init(configuration: Configuration = Configuration()) {
        for bounds in [configuration.defaultBuckets] + configuration.buckets.values {
            precondition(
                bounds.allSatisfy(\.isFinite) && zip(bounds, bounds.dropFirst()).allSatisfy(<),
                "histogram buckets ascend and are finite")
        }
        self.configuration = configuration
    }

    /// The counter of this name and label set, made at first use.
    public func counter(_ name: String, help: String = "", labels: Labels = [:]) -> Counter {
        let made = series(name, .counter, help, labels) { _ in .counter(Counter()) }
        if case .counter(let counter) = made { return counter }
        return Counter()
    }

    /// The gauge of this name and label set, made at first use.
    public func gauge(_ name: String, help: String = "", labels: Labels = [:]) -> Gauge {
        let made = series(name, .gauge, help, labels) { _ in .gauge(Gauge()) }
        if case .gauge(let gauge) = made { return gauge }
        return Gauge()
    }

    /// The histogram of this name and label set, made at first use with the configured buckets.
    public func histogram(_ name: String, help: String = "", labels: Labels = [:]) -> Histogram {
        let made = series(name, .histogram, help, labels.renamingBucketLabel()) {
            .histogram(Histogram(upperBounds: self.buckets($0)))
        }
        if case .histogram(let histogram) = made { return histogram }
        return Histogram(upperBounds: buckets(name))
    }

    /// Runs `collect` at every scrape, on the scraping thread; it reports current values.
    public func addCollector(_ collect: @escaping @Sendable (inout Scrape) -> Void) {
        state.withLock { $0.collectors.append(collect) }
    }

    /// Every metric with at least one series, sorted by name, in the given text format.
    public func exposition(_ format: ExpositionFormat) -> String {
        let collectors = state.withLock { $0.collectors }
        var scrape = Scrape()
        for collect in collectors { collect(&scrape) }
        // Folding is counted while collected series are bounded, before the registry is read.
        let collected = scrape.families.values.map { bounded($0) }
        let families = state.withLock { Array($0.families.values) }
        var snapshots: [String: FamilySnapshot] = [:]
        for family in families {
            snapshots[MetricName.familyKey(family.name)] = FamilySnapshot(family)
        }
        for family in collected {
            let key = MetricName.familyKey(family.name)
            if let existing = snapshots[key], existing.kind != family.kind { continue }
            snapshots[key, default: FamilySnapshot(name: family.name, kind: family.kind)]
                .merge(family, fallbackHelp: configuration.help[family.name] ?? "")
        }
        var writer = ExpositionWriter(format: format)
        for snapshot in snapshots.values.sorted(by: { $0.name < $1.name }) {
            writer.write(snapshot)
        }
        return writer.finish()
    }

    /// Forgets the series of a handle. The handle keeps working, but is no longer written.
    func remove(_ handle: AnyObject) {
        let families = state.withLock { Array($0.families.values) }
        for family in families { family.remove(ObjectIdentifier(handle)) }
    }

    private func series(
        _ name: String, _ kind: MetricKind, _ help: String, _ labels: Labels,
        make: (String) -> MetricFamily.Series
    ) -> MetricFamily.Series {
        let family = family(name, kind, help)
        guard family.kind == kind else {
            // Two libraries may choose one name for different kinds. The later one is counted
            // here and gets a handle that is not written, since a page with both is not valid.
            countConflict(family.name)
            return make(family.name)
        }
        let (series, wasFolded) = family.series(labels) { make(family.name) }
        if wasFolded { countFolded(family.name, by: 1) }
        return series
    }

    private func family(_ name: String, _ kind: MetricKind, _ help: String) -> MetricFamily {
        let name = Self.writtenName(name, kind)
        let key = MetricName.familyKey(name)
        let family = state.withLock { state in
            if let known = state.families[key] { return known }
            let made = MetricFamily(
                name: name, kind: kind, help: help.isEmpty ? configuration.help[name] ?? "" : help,
                limit: limit(name))
            state.families[key] = made
            return made
        }
        if family.kind == kind { family.describe(help) }
        return family
    }

    static func writtenName(_ name: String, _ kind: MetricKind) -> String {
        let name = MetricName.sanitized(name)
        return kind == .counter ? MetricName.familyKey(name) + "_total" : name
    }

    private func buckets(_ name: String) -> [Double] {
        configuration.buckets[name] ?? configuration.defaultBuckets
    }

    private func limit(_ name: String) -> SeriesLimit {
        // The registry's own counters are labelled by metric name, which code bounds.
        if name == Self.foldedName || name == Self.conflictsName {
            return SeriesLimit(maximumCount: .max / 2, closedLabels: [])
        }
        return SeriesLimit(
            maximumCount: max(
                1, configuration.maximumLabelSets[name] ?? configuration.defaultMaximumLabelSets),
            closedLabels: configuration.closedLabels[name] ?? [])
    }

    private func countFolded(_ metric: String, by count: Int) {
        counter(
            Self.foldedName, help: "Label sets folded into _other since the metric had too many.",
            labels: ["metric": metric]
        ).increment(by: count)
    }

    private func countConflict(_ metric: String) {
        counter(
            Self.conflictsName, help: "Uses of a metric name that has another kind already.",
            labels: ["metric": metric]
        ).increment()
    }

    /// Folds what a collector reported beyond the metric's limit, adding the values up.
    private func bounded(_ family: Scrape.Family) -> Scrape.Family {
        if let known = state.withLock({ $0.families[MetricName.familyKey(family.name)] }),
            known.kind != family.kind
        {
            countConflict(family.name)
        }
        let limit = limit(family.name)
        guard family.values.count > limit.maximumCount else { return family }
        var bounded = family
        bounded.values = [:]
        var foldedCount = 0
        for (labels, value) in family.values.sorted(by: { $0.key < $1.key }) {
            let admitted = limit.admitted(
                labels, count: bounded.values.count, isKnown: { bounded.values[$0] != nil })
            foldedCount += admitted == labels ? 0 : 1
            bounded.values[admitted, default: 0] += value
        }
        countFolded(family.name, by: foldedCount)
        return bounded
    }
}
