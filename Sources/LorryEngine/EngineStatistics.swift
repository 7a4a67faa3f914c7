import Foundation

/// What the engine is doing, as of its last step.
public struct EngineStatistics: Sendable, Equatable {
    public struct ResidentAdapter: Sendable, Equatable {
        public let id: AdapterVersionID
        public let name: String
        public let byteCount: Int
        /// Sequences that use it.
        public let leaseCount: Int
        public let isPinned: Bool

        package init(
            id: AdapterVersionID, name: String, byteCount: Int, leaseCount: Int, isPinned: Bool
        ) {
            self.id = id
            self.name = name
            self.byteCount = byteCount
            self.leaseCount = leaseCount
            self.isPinned = isPinned
        }
    }

    public var runningCount = 0
    /// Submitted and not running, for want of room or of their adapter.
    public var waitingCount = 0
    public var kvBlockCount = 0
    public var usedKVBlockCount = 0
    public var kvBlockByteCount = 0
    /// Blocks whose keys and values are only kept for requests to come.
    public var cachedKVBlockCount = 0
    /// Names of the adapters that running sequences use, sorted, each once.
    public var runningAdapters: [String] = []
    /// Names of the adapters that waiting sequences use, sorted, each once.
    public var waitingAdapters: [String] = []
    /// When either list last changed.
    public var adaptersChanged = Date(timeIntervalSince1970: 0)
    public var residentAdapters: [ResidentAdapter] = []
    public var residentAdapterByteCount = 0
    public var memoryBudgetByteCount = 0
    public var preemptionCount = 0
    /// Prompt tokens looked up in, and found in, the prefix cache.
    public var prefixCacheQueryCount = 0
    public var prefixCacheHitCount = 0
    public var maximumRunningCount = 0

    public init() {}
}

/// Is told what the engine does, on the engine thread: must return quickly.
public protocol EngineObserver: Sendable {
    func engineDidStep(_ step: StepObservation)
    func engineDidEmitToken(_ token: TokenObservation)
    func engineDidFinish(_ request: FinishObservation)
    func engineDidLoadAdapter(name: String, duration: Duration, error: String?)
    func engineDidEvictAdapter(name: String)
    /// The engine has stopped and looked for contradictions in what it notes of its memory.
    ///
    /// - Parameter fault: nil where there is none and nothing is held any more; else a bug.
    func engineDidCheckMemory(fault: String?)
}

extension EngineObserver {
    public func engineDidCheckMemory(fault: String?) {}
}

/// One step's size and where its time went.
public struct StepObservation: Sendable {
    public let promptTokenCount: Int
    public let decodeTokenCount: Int
    /// Distinct adapters in the batch.
    public let adapterCount: Int
    public let plan: Duration
    public let run: Duration
    public let commit: Duration

    package init(
        promptTokenCount: Int, decodeTokenCount: Int, adapterCount: Int, plan: Duration,
        run: Duration, commit: Duration
    ) {
        self.promptTokenCount = promptTokenCount
        self.decodeTokenCount = decodeTokenCount
        self.adapterCount = adapterCount
        self.plan = plan
        self.run = run
        self.commit = commit
    }
}

/// One generated token of one sequence.
public struct TokenObservation: Sendable {
    public let adapter: String?
    public let tenant: String
    /// Since the request was submitted, for the first token; since the last token, for others.
    public let latency: Duration
    public let isFirst: Bool

    package init(
        adapter: String?, tenant: String = "default", latency: Duration, isFirst: Bool
    ) {
        self.adapter = adapter
        self.tenant = tenant
        self.latency = latency
        self.isFirst = isFirst
    }
}

/// A request's end.
public struct FinishObservation: Sendable {
    public enum Outcome: Sendable, Equatable {
        case finished(FinishReason)
        case failed(EngineError)
    }
    public let id: String
    public let adapter: String?
    public let tenant: String
    public let outcome: Outcome
    public let promptTokenCount: Int
    public let completionTokenCount: Int
    public let timings: GenerationTimings
    public let total: Duration

    package init(
        id: String, adapter: String?, tenant: String = "default", outcome: Outcome,
        promptTokenCount: Int,
        completionTokenCount: Int, timings: GenerationTimings, total: Duration
    ) {
        self.id = id
        self.adapter = adapter
        self.tenant = tenant
        self.outcome = outcome
        self.promptTokenCount = promptTokenCount
        self.completionTokenCount = completionTokenCount
        self.timings = timings
        self.total = total
    }
}
