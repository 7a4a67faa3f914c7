import LorryTensor

/// The scheduler's bounds and how the KV cache is held.
public struct EngineConfiguration: Sendable, Equatable {
    /// Bytes that KV blocks and resident adapters share.
    public var memoryBudgetByteCount: Int
    /// Most tokens that a step computes.
    public var maximumBatchTokenCount: Int
    /// Most sequences that run at a time.
    public var maximumRunningCount: Int
    /// Most sequences that wait to run, places reserved included.
    public var maximumWaitingCount: Int
    /// Most prompt tokens of sequences that wait to run, estimates of those reserved included. One
    /// sequence of any length may always wait.
    public var maximumWaitingTokenCount = 1 << 20
    /// Whether several tenants share the engine, so that none may take all of the queue, or of the
    /// places among the running sequences.
    public var hasSeveralTenants = false
    /// How long a step should take at most where sequences decode: longer ones compute less of the
    /// prompts that are beside them. As soon as steps were measured.
    public var stepTarget = Duration.milliseconds(500)
    /// Most positions of a sequence, prompt and answer together.
    public var maximumContextLength: Int
    /// How keys and values are held; nil: the format that goes with the base's.
    public var kvFormat: OperandFormat?
    /// Whether keys and values stay, while there is room, for requests that begin with the same tokens.
    public var cachesPrefixes = true
    /// Events that a generation's reader may lag behind before its sequence is paused.
    public var eventBufferCount = 64
    /// Adapters that are loaded at a time.
    package var maximumLoadCount = 16
    package var policy = FairQueue.Policy.fair
    package var eviction = EvictionOrder.gdsf

    public init(
        memoryBudgetByteCount: Int, maximumBatchTokenCount: Int = 512,
        maximumRunningCount: Int = 64, maximumWaitingCount: Int = 1024, maximumContextLength: Int
    ) {
        self.memoryBudgetByteCount = memoryBudgetByteCount
        self.maximumBatchTokenCount = maximumBatchTokenCount
        self.maximumRunningCount = maximumRunningCount
        self.maximumWaitingCount = maximumWaitingCount
        self.maximumContextLength = maximumContextLength
    }
}
