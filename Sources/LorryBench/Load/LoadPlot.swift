/// A run as an SVG picture: rates, first tokens, requests in flight and failures over time.
public enum LoadPlot {
    /// - Returns: the document's text.
    public static func svg(_ report: LoadReport) -> String {
        let series = report.series
        let width = series.intervalSeconds
        let times = series.intervals.indices.map { (Double($0) + 0.5) * width }
        func points(_ value: (LoadSeries.Interval) -> Double?) -> [ChartPanel.Point] {
            zip(times, series.intervals).map { ChartPanel.Point(x: $0, y: value($1)) }
        }
        var panels = [
            ChartPanel(
                title: "Tokens per second",
                curves: [
                    .init(
                        name: "received", style: .first, isFilled: true,
                        points: points { Double($0.tokens) / width })
                ]),
            ChartPanel(
                title: "First token, seconds from arrival",
                curves: [
                    .init(name: "p95", style: .second, points: points(\.firstTokenP95)),
                    .init(name: "p50", style: .first, points: points(\.firstTokenP50)),
                ]),
            ChartPanel(
                title: "Requests in flight",
                curves: [
                    .init(
                        name: "at the end of each interval", style: .first, isFilled: true,
                        points: points { Double($0.inFlight) })
                ]),
            ChartPanel(
                title: "Requests per second",
                curves: [
                    .init(
                        name: "sent", style: .second, points: points { Double($0.sent) / width }),
                    .init(
                        name: "finished", style: .first,
                        points: points { Double($0.finished) / width }),
                ]),
        ]
        if report.failed > 0 {
            panels.append(
                ChartPanel(
                    title: "Failures per second",
                    curves: [
                        .init(
                            name: "failed", style: .failure, isFilled: true,
                            points: points { Double($0.failed) / width })
                    ]))
        }
        let chart = Chart(
            title: title(report), subtitle: subtitle(report), panels: panels,
            xMaximum: width * Double(series.intervals.count),
            mark: report.steady.to > 0 ? report.steady.to : nil)
        return chart.svg
    }

    private static func title(_ report: LoadReport) -> String {
        let setting = report.setting
        let adapters = setting.adapters == 1 ? "1 adapter" : "\(setting.adapters) adapters"
        return "\(setting.workload) on \(setting.model), \(adapters)"
    }

    private static func subtitle(_ report: LoadReport) -> String {
        "\(Figures.significant(report.requestsPerSecond)) requests/s, "
            + "\(Figures.significant(report.tokensPerSecond)) tokens/s; "
            + "\(report.requests.finished) finished, \(report.failed) failed, "
            + "\(report.requests.cancelled) cancelled; first token p50 "
            + "\(Figures.duration(report.firstToken.p50)), p95 "
            + "\(Figures.duration(report.firstToken.p95))"
    }
}
