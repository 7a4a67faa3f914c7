/// What collectors report at one scrape: current values that live outside of the registry.
public struct Scrape: Sendable {
    struct Family: Sendable {
        let name: String
        let kind: MetricKind
        var help: String
        var values: [Labels: Double] = [:]
    }

    /// By ``MetricName/familyKey(_:)``.
    private(set) var families: [String: Family] = [:]

    init() {}

    /// Reports a gauge. A second value of one label set replaces the first.
    public mutating func gauge(
        _ name: String, help: String = "", labels: Labels = [:], _ value: Double
    ) {
        report(name, .gauge, help, labels, value)
    }

    /// Reports a counter's total since the process started.
    public mutating func counter(
        _ name: String, help: String = "", labels: Labels = [:], _ total: Double
    ) {
        report(name, .counter, help, labels, total)
    }

    private mutating func report(
        _ name: String, _ kind: MetricKind, _ help: String, _ labels: Labels, _ value: Double
    ) {
        let written = PrometheusRegistry.writtenName(name, kind)
        let key = MetricName.familyKey(written)
        var family = families[key] ?? Family(name: written, kind: kind, help: help)
        precondition(family.kind == kind, "a collector reports one name as two kinds")
        if family.help.isEmpty { family.help = help }
        family.values[labels] = value
        families[key] = family
    }
}
