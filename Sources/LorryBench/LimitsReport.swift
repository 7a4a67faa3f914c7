import LorryTensor

/// The machine's measured limits, as `--json` writes them.
public struct LimitsReport: Codable, Sendable, Equatable {
    public let level: String
    public let threads: Int
    public let readBytesPerSecond: Double
    public let int8OperationsPerSecond: Double
    public let bf16OperationsPerSecond: Double
    public let f32OperationsPerSecond: Double
    public let int8Instruction: String
    public let bf16Instruction: String
    public let f32Instruction: String

    public init(_ limits: MachineLimits) {
        level = limits.level.rawValue
        threads = limits.threadCount
        readBytesPerSecond = limits.readBytesPerSecond
        int8OperationsPerSecond = limits.int8.operationsPerSecond
        bf16OperationsPerSecond = limits.bf16.operationsPerSecond
        f32OperationsPerSecond = limits.f32.operationsPerSecond
        int8Instruction = limits.int8.instruction
        bf16Instruction = limits.bf16.instruction
        f32Instruction = limits.f32.instruction
    }

    enum CodingKeys: String, CodingKey {
        case level, threads
        case readBytesPerSecond = "read_bytes_per_second"
        case int8OperationsPerSecond = "int8_operations_per_second"
        case bf16OperationsPerSecond = "bf16_operations_per_second"
        case f32OperationsPerSecond = "f32_operations_per_second"
        case int8Instruction = "int8_instruction"
        case bf16Instruction = "bf16_instruction"
        case f32Instruction = "f32_instruction"
    }

    /// A table for people.
    public var table: TextTable {
        var table = TextTable([("limit", .left), ("measured", .right), ("by", .left)])
        func giga(_ value: Double, _ unit: String) -> String {
            "\(Figures.significant(value / 1e9)) \(unit)"
        }
        table.add(["reading memory", giga(readBytesPerSecond, "GB/s"), "buffer beyond caches"])
        table.add(["int8", giga(int8OperationsPerSecond, "Gop/s"), int8Instruction])
        table.add(["bf16", giga(bf16OperationsPerSecond, "GFLOP/s"), bf16Instruction])
        table.add(["f32", giga(f32OperationsPerSecond, "GFLOP/s"), f32Instruction])
        return table
    }
}
