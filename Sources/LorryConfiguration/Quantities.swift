/// Sizes as people write them.
public enum ByteSize {
    /// A number with an optional unit: powers of 1024 as `KiB` or `Ki`, of 1000 as `KB` or `K`;
    /// capitals do not matter.
    /// - Returns: bytes, rounded down, or nil when it is no size or does not fit.
    public static func parse(_ text: String) -> Int? {
        guard let (number, unit) = splitQuantity(Substring(text)) else { return nil }
        var name = unit.lowercased()
        if name.hasSuffix("b") { name.removeLast() }
        let isBinary = name.hasSuffix("i")
        if isBinary { name.removeLast() }
        let powers = ["": 0, "k": 1, "m": 2, "g": 3, "t": 4]
        guard let power = powers[name], !(isBinary && power == 0) else { return nil }
        let factor = (0..<power).reduce(1) { product, _ in product * (isBinary ? 1024 : 1000) }
        // Whole numbers do not go through Double, which would round the large ones.
        if let whole = Int(number) {
            let (bytes, overflow) = whole.multipliedReportingOverflow(by: factor)
            return overflow ? nil : bytes
        }
        guard let fraction = Double(number) else { return nil }
        return Int(exactly: (fraction * Double(factor)).rounded(.down))
    }
}

/// Durations as people write them.
public enum DurationText {
    /// Numbers with units `ms`, `s`, `m` or `h`, largest first (`1m30s`), or a number of seconds.
    public static func parse(_ text: String) -> Duration? {
        var rest = Substring(text)
        if let seconds = Int(text) {
            return (0...maximumSeconds).contains(seconds) ? .seconds(seconds) : nil
        }
        let milliseconds = ["h": 3_600_000.0, "m": 60000, "s": 1000, "ms": 1]
        var total = 0.0
        var previous = Double.infinity
        while !rest.isEmpty {
            guard let (number, tail) = splitQuantity(rest), let value = Double(number) else {
                return nil
            }
            let unit = tail.prefix { $0.isLetter }
            guard let factor = milliseconds[String(unit)], factor < previous else { return nil }
            previous = factor
            total += value * factor
            rest = tail.dropFirst(unit.count)
        }
        guard !text.isEmpty, total <= Double(maximumSeconds) * 1000 else { return nil }
        return .milliseconds(Int64(total.rounded()))
    }

    /// A year; longer ones are typing errors.
    private static let maximumSeconds = 366 * 86400
}

/// Digits with at most one point between them, and what follows without the space between.
private func splitQuantity(_ text: Substring) -> (number: String, rest: Substring)? {
    let number = text.prefix { ("0"..."9").contains($0) || $0 == "." }
    let parts = number.split(separator: ".", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), parts.allSatisfy({ !$0.isEmpty }) else { return nil }
    return (String(number), text.dropFirst(number.count).drop { $0 == " " })
}
