/// A strict parser of the subset of Prometheus text 0.0.4 and OpenMetrics 1.0 that a registry may
/// write: it refuses everything that a scraper might stumble over.
struct ParsedExposition {
    struct Sample: Equatable {
        let name: String
        let labels: [String: String]
        let value: Double
    }

    struct Family {
        let name: String
        let type: String
        var help: String?
        var samples: [Sample] = []
    }

    struct Malformed: Error, CustomStringConvertible {
        let description: String
    }

    private(set) var families: [String: Family] = [:]

    init(_ text: String, openMetrics: Bool) throws {
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        guard lines.popLast() == "" else { throw Malformed(description: "no final line feed") }
        if openMetrics {
            guard lines.popLast() == "# EOF" else { throw Malformed(description: "no # EOF") }
        }
        var current: Family?
        var help: (name: String, text: String)?
        for line in lines {
            if line.hasPrefix("# HELP ") {
                let words = line.split(separator: " ", maxSplits: 3)
                guard words.count == 4, help == nil else { throw Malformed(description: line) }
                help = (
                    String(words[2]), try Self.unescape(String(words[3]), quotes: openMetrics)
                )
            } else if line.hasPrefix("# TYPE ") {
                let words = line.split(separator: " ").map(String.init)
                guard words.count == 4, ["counter", "gauge", "histogram"].contains(words[3]),
                    help == nil || help?.name == words[2], Self.isName(words[2], colons: true)
                else { throw Malformed(description: line) }
                try close(current)
                current = Family(name: words[2], type: words[3], help: help?.text)
                help = nil
            } else {
                let sample = try Self.sample(line)
                guard let family = current, help == nil,
                    Self.sampleNames(family, openMetrics: openMetrics).contains(sample.name)
                else { throw Malformed(description: "sample outside its family: \(line)") }
                current?.samples.append(sample)
            }
        }
        try close(current)
    }

    func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
        families.values.lazy.flatMap(\.samples).first { $0.name == name && $0.labels == labels }?
            .value
    }

    private mutating func close(_ family: Family?) throws {
        guard let family else { return }
        guard families[family.name] == nil, !family.samples.isEmpty else {
            throw Malformed(description: "family \(family.name) twice or empty")
        }
        for (index, sample) in family.samples.enumerated()
        where family.samples[..<index].contains(where: {
            $0.name == sample.name && $0.labels == sample.labels
        }) {
            throw Malformed(description: "series twice: \(sample)")
        }
        if family.type == "histogram" { try Self.checkHistogram(family) }
        families[family.name] = family
    }

    /// Buckets ascend, count cumulatively and end at +Inf with the same number as `_count`.
    private static func checkHistogram(_ family: Family) throws {
        let buckets = family.samples.filter { $0.name.hasSuffix("_bucket") }
        func own(_ sample: Sample) -> [String: String] { sample.labels.filter { $0.key != "le" } }
        for labels in Set(buckets.map(own)) {
            let series = buckets.filter { own($0) == labels }
            let bounds = series.compactMap { $0.labels["le"].flatMap(number) }
            let count = family.samples.first {
                $0.name == family.name + "_count" && $0.labels == labels
            }
            let hasSum = family.samples.contains {
                $0.name == family.name + "_sum" && $0.labels == labels
            }
            guard bounds.count == series.count, bounds == bounds.sorted(), hasSum,
                bounds.last == .infinity, series.map(\.value) == series.map(\.value).sorted(),
                count?.value == series.last?.value
            else { throw Malformed(description: "histogram \(family.name) \(labels)") }
        }
    }

    private static func sampleNames(_ family: Family, openMetrics: Bool) -> [String] {
        switch family.type {
        case "counter": openMetrics ? [family.name + "_total"] : [family.name]
        case "gauge": [family.name]
        default: ["_bucket", "_sum", "_count"].map { family.name + $0 }
        }
    }

    private static func sample(_ line: String) throws -> Sample {
        var rest = Substring(line)
        let name = String(rest.prefix { $0 != "{" && $0 != " " })
        rest = rest.dropFirst(name.count)
        var labels: [String: String] = [:]
        if rest.first == "{" {
            repeat {
                rest = rest.dropFirst()
                let label = String(rest.prefix { $0 != "=" })
                rest = rest.dropFirst(label.count)
                guard rest.hasPrefix("=\""), isName(label, colons: false), labels[label] == nil
                else { throw Malformed(description: line) }
                rest = rest.dropFirst(2)
                var raw = ""
                while let character = rest.popFirst(), character != "\"" {
                    raw.append(character)
                    if character == "\\", let next = rest.popFirst() { raw.append(next) }
                }
                labels[label] = try unescape(raw, quotes: true)
            } while rest.first == ","
            guard rest.popFirst() == "}" else { throw Malformed(description: line) }
        }
        guard rest.popFirst() == " ", isName(name, colons: true), let value = number(String(rest))
        else { throw Malformed(description: line) }
        return Sample(name: name, labels: labels, value: value)
    }

    private static func number(_ text: String) -> Double? {
        switch text {
        case "+Inf": .infinity
        case "-Inf": -.infinity
        case "NaN": .nan
        default: text.allSatisfy { "0123456789.e+-".contains($0) } ? Double(text) : nil
        }
    }

    private static func isName(_ text: String, colons: Bool) -> Bool {
        text.first.map { !("0"..."9").contains($0) } == true
            && text.unicodeScalars.allSatisfy {
                ("a"..."z").contains($0) || ("A"..."Z").contains($0) || ("0"..."9").contains($0)
                    || $0 == "_" || (colons && $0 == ":")
            }
    }

    private static func unescape(_ text: String, quotes: Bool) throws -> String {
        var plain = ""
        var rest = Substring(text)
        while let character = rest.popFirst() {
            guard character == "\\" else {
                if character == "\"", quotes { throw Malformed(description: text) }
                plain.append(character)
                continue
            }
            switch rest.popFirst() {
            case "\\": plain.append("\\")
            case "n": plain.append("\n")
            case "\"" where quotes: plain.append("\"")
            default: throw Malformed(description: "escape in \(text)")
            }
        }
        return plain
    }
}
