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
    /// Most positions of a sequence, prompt and answer together.
    public var maximumContextLength: Int
    /// How keys and values are held; nil: the format that goes with the base's.
    public var kvFormat: OperandFormat?
    /// Events that a generation's reader may lag behind before its sequence is paused.
    public var eventBufferCount = 64

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
