/// How long loads will take, from how long the last ones took: a time per byte, exponentially
/// smoothed.
public struct LoadTimeEstimate: Sendable, Equatable {
    /// What a new load counts against all those before.
    private static let weight = 0.2
    /// Of an adapter's file in the page cache; a few loads correct it.
    private static let firstSecondsPerByte = 1 / 1e9

    package private(set) var secondsPerByte = firstSecondsPerByte

    public init() {}

    /// - Parameters:
    ///   - byteCount: that the adapter occupies in memory; none is nothing to learn from.
    ///   - duration: of the load alone, without its wait for others.
    public mutating func note(byteCount: Int, duration: Duration) {
        guard byteCount > 0 else { return }
        let found = duration / .seconds(1) / Double(byteCount)
        secondsPerByte += Self.weight * (found - secondsPerByte)
    }

    public func duration(byteCount: Int) -> Duration {
        .seconds(secondsPerByte * Double(byteCount))
    }
}
