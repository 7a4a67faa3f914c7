/// The text formats of a scrape's answer.
public enum ExpositionFormat: Sendable {
    /// Prometheus text format 0.0.4.
    case prometheus
    /// OpenMetrics 1.0, without the optional `_created` samples.
    case openMetrics

    /// The value of the answer's `Content-Type`.
    public var contentType: String {
        switch self {
        case .prometheus: "text/plain; version=0.0.4; charset=utf-8"
        case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
        }
    }

    /// Chooses by a request's `Accept` (RFC 9110, 12.5.1): OpenMetrics when it is named and not
    /// wanted less than plain text, otherwise Prometheus' format.
    public init(accept: String?) {
        var openMetrics = 0.0
        var plain = 0.0
        for range in (accept ?? "").split(separator: ",") {
            let parts = range.split(separator: ";").map { part in
                part.lowercased().filter { $0 != " " && $0 != "\t" }
            }
            let quality =
                parts.dropFirst().first { $0.hasPrefix("q=") }
                .map { Double($0.dropFirst(2)) ?? 0 } ?? 1
            switch parts.first {
            case "application/openmetrics-text": openMetrics = max(openMetrics, quality)
            case "text/plain", "text/*", "*/*": plain = max(plain, quality)
            default: break
            }
        }
        self = openMetrics > 0 && openMetrics >= plain ? .openMetrics : .prometheus
    }
}

/// One family's values at the time of a scrape.
struct FamilySnapshot {
    enum Value {
        case number(Double)
        case buckets(upperBounds: [Double], PrometheusRegistry.Histogram.State)
    }

    let name: String
    let kind: MetricKind
    var help = ""
    var values: [Labels: Value] = [:]

    init(name: String, kind: MetricKind) {
        self.name = name
        self.kind = kind
    }

    init(_ family: MetricFamily) {
        let (help, series) = family.snapshot()
        self.init(name: family.name, kind: family.kind)
        self.help = help
        values = series.mapValues { series in
            switch series {
            case .counter(let counter): .number(counter.value)
            case .gauge(let gauge): .number(gauge.value)
            case .histogram(let histogram):
                .buckets(upperBounds: histogram.upperBounds, histogram.snapshot())
            }
        }
    }

    mutating func merge(_ collected: Scrape.Family, fallbackHelp: String) {
        if help.isEmpty { help = collected.help.isEmpty ? fallbackHelp : collected.help }
        for (labels, value) in collected.values { values[labels] = .number(value) }
    }
}

/// Writes families as text.
struct ExpositionWriter {
    let format: ExpositionFormat
    private var text = ""

    init(format: ExpositionFormat) {
        self.format = format
    }

    mutating func write(_ family: FamilySnapshot) {
        guard !family.values.isEmpty else { return }
        // OpenMetrics names a counter's family without the suffix that its samples carry.
        let heading =
            format == .openMetrics && family.kind == .counter
            ? MetricName.familyKey(family.name) : family.name
        if !family.help.isEmpty { text += "# HELP \(heading) \(escapedHelp(family.help))\n" }
        text += "# TYPE \(heading) \(family.kind.rawValue)\n"
        for (labels, value) in family.values.sorted(by: { $0.key < $1.key }) {
            switch value {
            case .number(let number):
                sample(family.name, labels, number: Self.number(number))
            case .buckets(let upperBounds, let state):
                write(family.name, labels, upperBounds, state)
            }
        }
    }

    consuming func finish() -> String {
        format == .openMetrics ? text + "# EOF\n" : text
    }

    private mutating func write(
        _ name: String, _ labels: Labels, _ upperBounds: [Double],
        _ state: PrometheusRegistry.Histogram.State
    ) {
        var cumulative: UInt64 = 0
        for (index, count) in state.counts.enumerated() {
            cumulative += count
            // Bounds are written as OpenMetrics asks ("1.0") in both formats, so that a bucket is
            // the same time series whichever format the scraper negotiates.
            let bound = index < upperBounds.count ? upperBounds[index].description : "+Inf"
            sample(name + "_bucket", labels, le: bound, number: "\(cumulative)")
        }
        sample(name + "_sum", labels, number: Self.number(state.sum))
        sample(name + "_count", labels, number: "\(cumulative)")
    }

    private mutating func sample(
        _ name: String, _ labels: Labels, le: String? = nil, number: String
    ) {
        var parts = labels.pairs.map { "\($0.name)=\"\(Self.escapedValue($0.value))\"" }
        if let le { parts.append("le=\"\(le)\"") }
        let set = parts.isEmpty ? "" : "{\(parts.joined(separator: ","))}"
        text += "\(name)\(set) \(number)\n"
    }

    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        return Int64(exactly: value)?.description ?? value.description
    }

    static func escapedValue(_ value: String) -> String {
        escaped(value, quotes: true)
    }

    private func escapedHelp(_ help: String) -> String {
        Self.escaped(help, quotes: format == .openMetrics)
    }

    private static func escaped(_ text: String, quotes: Bool) -> String {
        var escaped = ""
        // Scalars, not characters: "\r\n" is one character, and its line feed must be seen.
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": escaped += "\\\\"
            case "\n": escaped += "\\n"
            case "\"" where quotes: escaped += "\\\""
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }
}
