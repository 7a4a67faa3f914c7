/// Which requests a run sends, and when.
public enum LoadSource: Sendable {
    /// At their times of arrival.
    case trace([NumberedRequest])
    /// One when another ends, until the given seconds have passed.
    case closedLoop(PunicaWorkload, tenants: [Int], seconds: Double)
}

/// How a run is carried out.
public struct LoadOptions: Sendable {
    /// Requests that are under way at most; others wait for a place, and their time counts from
    /// their arrival. Nil: no bound.
    public var inFlightLimit: Int?
    /// Of one HTTP/2 connection. Servers allow 100 and more (RFC 9113 §6.5.2).
    public var streamsPerConnection = 100
    /// A request that takes longer has failed.
    public var requestTimeout = 600.0
    /// How long answers may still take after the last request's arrival; what is under way then is
    /// cancelled. Nil waits for all.
    public var drainSeconds: Double?
    /// Keeps all token ids, for a later comparison.
    public var keepsTokens = false

    public init() {}
}

/// Where a run stands.
public struct LoadProgress: Sendable {
    public var seconds: Double
    /// Of the run's planned length, from 0 to 1.
    public var share: Double
    public var sentCount: Int
    public var finishedCount: Int
    public var failedCount: Int
    public var inFlightCount: Int
    public var tokenCount: Int
}

/// What a run gave.
public struct LoadResult: Sendable {
    public var ledger: LoadLedger
    /// From the start until nothing was under way any more.
    public var seconds: Double
    /// When the last request was due, or a closed loop stopped.
    public var lastArrivalSeconds: Double
    /// Processor time of this program meanwhile.
    public var clientProcessorSeconds: Double
    public var connectionCount: Int
    /// Longest time between a request's arrival and its sending, where nothing bounds those under
    /// way: how late this program was itself.
    public var worstLag: Double
    /// The run was ended by hand.
    public var wasStopped: Bool

    package init(
        ledger: LoadLedger, seconds: Double, lastArrivalSeconds: Double,
        clientProcessorSeconds: Double, connectionCount: Int, worstLag: Double, wasStopped: Bool
    ) {
        self.ledger = ledger
        self.seconds = seconds
        self.lastArrivalSeconds = lastArrivalSeconds
        self.clientProcessorSeconds = clientProcessorSeconds
        self.connectionCount = connectionCount
        self.worstLag = worstLag
        self.wasStopped = wasStopped
    }
}
