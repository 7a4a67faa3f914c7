/// How many sequences in the engine want each adapter version.
struct AdapterUsers {
    struct Count {
        var waitingCount = 0
        /// The leases.
        var runningCount = 0
        /// Grows with the time at which the first of those who wait came.
        fileprivate(set) var waitsSince: UInt64 = 0
    }

    private var counts: [AdapterVersionID: Count] = [:]
    private var arrivals: UInt64 = 0

    /// Nil where nobody wants it.
    subscript(id: AdapterVersionID) -> Count? { counts[id] }

    /// Of all adapters together.
    var runningCount: Int { counts.values.reduce(0) { $0 + $1.runningCount } }

    /// - Returns: what the counts are now.
    mutating func change(_ id: AdapterVersionID, _ body: (inout Count) -> Void) -> Count {
        let before = counts[id] ?? Count()
        var after = before
        body(&after)
        precondition(after.waitingCount >= 0 && after.runningCount >= 0, "a lease too few")
        if before.waitingCount == 0, after.waitingCount > 0 {
            arrivals += 1
            after.waitsSince = arrivals
        }
        let isGone = after.waitingCount == 0 && after.runningCount == 0
        counts[id] = isGone ? nil : after
        return after
    }
}
