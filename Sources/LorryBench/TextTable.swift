/// Rows of text in aligned columns.
public struct TextTable: Sendable {
    public enum Alignment: Sendable { case left, right }

    private let columns: [(title: String, alignment: Alignment)]
    private var rows: [[String]] = []

    public init(_ columns: [(title: String, alignment: Alignment)]) { self.columns = columns }

    /// Missing cells are empty, further ones are left out.
    public mutating func add(_ cells: [String]) {
        rows.append(columns.indices.map { $0 < cells.count ? cells[$0] : "" })
    }

    /// The titles and all rows, one line each, two spaces between columns.
    public var lines: [String] {
        let all = [columns.map(\.title)] + rows
        let widths = columns.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
        return all.map { Self.line($0, widths: widths, columns.map(\.alignment)) }
    }

    private static func line(
        _ cells: [String], widths: [Int], _ alignments: [Alignment]
    ) -> String {
        let padded = cells.indices.map { column in
            let space = String(repeating: " ", count: max(0, widths[column] - cells[column].count))
            return alignments[column] == .left ? cells[column] + space : space + cells[column]
        }
        let line = padded.joined(separator: "  ")
        return String(line.reversed().drop { $0 == " " }.reversed())
    }
}
