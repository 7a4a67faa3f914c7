import Foundation

/// One of a chart's diagrams.
struct ChartPanel {
    struct Point {
        var x: Double
        /// Nil leaves a gap.
        var y: Double?
    }

    /// The names of classes in the document's style sheet.
    enum Style: String {
        case first, second, failure
    }

    struct Curve {
        var name: String
        var style: Style
        var isFilled = false
        var points: [Point]
    }

    var title: String
    var curves: [Curve]

    /// The greatest value, at least a little above 0.
    var maximum: Double { max(curves.flatMap(\.points).compactMap(\.y).max() ?? 0, 1e-9) }
}

/// Diagrams above each other with one axis of time, as SVG without scripts or outside parts.
struct Chart {
    var title: String
    var subtitle: String
    var panels: [ChartPanel]
    /// Where the axis of time ends, in seconds.
    var xMaximum: Double
    /// A time that is marked as the load's end.
    var mark: Double?

    private static let width = 880.0
    private static let left = 64.0
    private static let right = 20.0
    private static let top = 70.0
    private static let plotHeight = 104.0
    private static let panelHeight = 160.0
    private static let bottom = 36.0

    private var height: Double {
        Self.top + Double(panels.count) * Self.panelHeight + Self.bottom - 16
    }

    /// Colours of middle brightness on no background, so that it suits light pages and dark ones.
    private static let style = """
        text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #7b7f86 }
        .title { font-size: 16px; font-weight: 600 } .name { font-weight: 600 }
        .end { text-anchor: end } .middle { text-anchor: middle }
        .grid { stroke: #7b7f86; stroke-opacity: .22 } .axis { stroke: #7b7f86; stroke-opacity: .7 }
        .mark { stroke: #7b7f86; stroke-dasharray: 4 4 }
        .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round }
        .first { stroke: #2f86d6 } .second { stroke: #d98324 } .failure { stroke: #d6453d }
        .area { stroke: none; fill-opacity: .16 }
        .area.first { fill: #2f86d6 } .area.second { fill: #d98324 } .area.failure { fill: #d6453d }
        """

    var svg: String {
        let size = "\(Self.number(Self.width)) \(Self.number(height))"
        var lines = [
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(size)\" role=\"img\">",
            "<title>\(Self.escaped(title))</title>", "<style>", Self.style, "</style>",
            text(Self.left, 26, title, "title"), text(Self.left, 46, subtitle),
        ]
        for (index, panel) in panels.enumerated() {
            lines += draw(
                panel, top: Self.top + Double(index) * Self.panelHeight + 26,
                isLast: index == panels.count - 1, isFirst: index == 0)
        }
        return lines.joined(separator: "\n") + "\n</svg>\n"
    }

    private func x(_ time: Double) -> Double {
        Self.left + time / max(xMaximum, 1e-9) * (Self.width - Self.left - Self.right)
    }

    private func draw(_ panel: ChartPanel, top: Double, isLast: Bool, isFirst: Bool) -> [String] {
        let ticks = AxisTicks(maximum: panel.maximum, count: 4)
        let bottom = top + Self.plotHeight
        func y(_ value: Double) -> Double { bottom - value / ticks.end * Self.plotHeight }
        let plotRight = Self.width - Self.right
        var lines = [text(Self.left, top - 10, panel.title, "name")]
        if panel.curves.count > 1 { lines += legend(panel, y: top - 10) }
        for (value, label) in ticks.values {
            lines.append(
                line(Self.left, y(value), plotRight, y(value), value == 0 ? "axis" : "grid"))
            lines.append(text(Self.left - 8, y(value) + 4, label, "end"))
        }
        for (value, label) in AxisTicks(maximum: xMaximum, count: 10).values
        where value <= xMaximum {
            lines.append(line(x(value), bottom, x(value), bottom + 4, "axis"))
            guard isLast else { continue }
            lines.append(text(x(value), bottom + 18, label, "middle"))
        }
        if isLast { lines.append(text(plotRight, bottom + 34, "seconds", "end")) }
        if let mark, mark < xMaximum * 0.995 {
            lines.append(line(x(mark), top, x(mark), bottom, "mark"))
            if isFirst {
                let isLeft = x(mark) < Self.width / 2
                lines.append(
                    text(
                        x(mark) + (isLeft ? 6 : -6), top + 10, "last arrival", isLeft ? "" : "end"))
            }
        }
        for curve in panel.curves { lines += draw(curve, bottom: bottom, y: y) }
        return lines
    }

    private func draw(
        _ curve: ChartPanel.Curve, bottom: Double, y: (Double) -> Double
    ) -> [String] {
        var lines: [String] = []
        let style = curve.style.rawValue
        let runs = curve.points.split { $0.y == nil }
        for run in runs {
            let places = run.map { "\(Self.number(x($0.x))),\(Self.number(y($0.y ?? 0)))" }
            guard let first = run.first, let last = run.last else { continue }
            if curve.isFilled {
                let ends = (
                    "\(Self.number(x(first.x))),\(Self.number(bottom))",
                    "\(Self.number(x(last.x))),\(Self.number(bottom))"
                )
                lines.append(
                    "<polygon class=\"area \(style)\" points=\"\(ends.0) "
                        + "\(places.joined(separator: " ")) \(ends.1)\"/>")
            }
            // A single value is a short dash.
            let path =
                places.count == 1
                ? "\(Self.number(x(first.x) - 2)),\(Self.number(y(first.y ?? 0))) "
                    + "\(Self.number(x(first.x) + 2)),\(Self.number(y(first.y ?? 0)))"
                : places.joined(separator: " ")
            lines.append("<polyline class=\"curve \(style)\" points=\"\(path)\"/>")
        }
        return lines
    }

    private func legend(_ panel: ChartPanel, y: Double) -> [String] {
        var lines: [String] = []
        var end = Self.width - Self.right
        for curve in panel.curves.reversed() {
            let start = end - Double(curve.name.count) * 6.6
            lines.append(text(start, y, curve.name))
            lines.append(line(start - 24, y - 4, start - 6, y - 4, "curve \(curve.style.rawValue)"))
            end = start - 40
        }
        return lines
    }

    private func text(_ x: Double, _ y: Double, _ text: String, _ style: String = "") -> String {
        let style = style.isEmpty ? "" : " class=\"\(style)\""
        return "<text x=\"\(Self.number(x))\" y=\"\(Self.number(y))\"\(style)>"
            + "\(Self.escaped(text))</text>"
    }

    private func line(
        _ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ style: String
    ) -> String {
        "<line class=\"\(style)\" x1=\"\(Self.number(x1))\" y1=\"\(Self.number(y1))\" "
            + "x2=\"\(Self.number(x2))\" y2=\"\(Self.number(y2))\"/>"
    }

    static func number(_ value: Double) -> String {
        let text = String(format: "%.1f", value)
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }

    static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;")
            .replacing(">", with: "&gt;").replacing("\"", with: "&quot;")
    }
}

/// Round numbers along an axis from 0.
struct AxisTicks {
    let values: [(value: Double, label: String)]
    /// The first round number that is not below the maximum.
    let end: Double

    /// - Parameter count: at most about so many steps.
    init(maximum: Double, count: Int) {
        let least = max(maximum, 1e-9) / Double(count)
        let decade = pow(10, log10(least).rounded(.down))
        let step = [1.0, 2, 5, 10].first { $0 * decade >= least * 0.999 }.map { $0 * decade }
        let width = step ?? decade * 10
        let steps = max(1, Int((maximum / width - 1e-6).rounded(.up)))
        let decimals = max(0, -Int((log10(width) + 1e-9).rounded(.down)))
        values = (0...steps).map { index in
            let value = Double(index) * width
            return (value, String(format: "%.\(min(decimals, 9))f", value))
        }
        end = Double(steps) * width
    }
}
