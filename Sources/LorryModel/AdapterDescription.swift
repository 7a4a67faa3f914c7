/// What an adapter folder holds, found by checking it whole against the base model.
public struct AdapterDescription: Sendable, Codable, Equatable {
    /// The PEFT method as its configuration names it, such as `LORA`.
    public var method: String
    /// The largest rank of its targets; 0 for methods that have none.
    public var rank: Int
    /// The kinds of modules it changes, such as `q_proj`, sorted.
    public var targets: [String]
    /// Bytes it takes in memory once it is resident.
    public var byteCount: Int
    /// Number of trained values.
    public var parameterCount: Int

    public init(
        method: String, rank: Int, targets: [String], byteCount: Int, parameterCount: Int
    ) {
        self.method = method
        self.rank = rank
        self.targets = targets
        self.byteCount = byteCount
        self.parameterCount = parameterCount
    }
}
