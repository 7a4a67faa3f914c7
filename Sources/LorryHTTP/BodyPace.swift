import NIOCore

/// Judges whether a client sends its request body fast enough, by looking at it now and then.
///
/// Only the time in which the handler waited for bytes counts: a client is not blamed for a
/// server that does not read.
package struct BodyPace: Sendable {
    private var receivedByteCount = 0
    private var waitedInAll = TimeAmount.zero
    private var waitedSinceBytes = TimeAmount.zero

    package init() {}

    package mutating func received(_ byteCount: Int) {
        receivedByteCount += byteCount
        waitedSinceBytes = .zero
    }

    /// Notes that `time` went by since the last look. - Returns: false when the body is too slow.
    package mutating func elapsed(
        _ time: TimeAmount, isHungry: Bool, limits: HTTPLimits
    ) -> Bool {
        guard isHungry else { return true }
        waitedInAll = waitedInAll + time
        waitedSinceBytes = waitedSinceBytes + time
        let grace = TimeAmount(limits.bodyIdleTimeout)
        guard waitedSinceBytes <= grace else { return false }
        guard waitedInAll > grace else { return true }
        guard has(broughtAt: limits.bodyByteRate, since: .zero) else { return false }
        return has(
            broughtAt: limits.longBodyByteRate, since: TimeAmount(limits.longBodyTimeout))
    }

    /// Whether so many bytes per second came of the time waited for beyond `start`.
    private func has(broughtAt byteRate: Int, since start: TimeAmount) -> Bool {
        let seconds = Double((waitedInAll - start).nanoseconds) / 1e9
        return Double(receivedByteCount) >= seconds * Double(byteRate)
    }
}
