import LorryTensor

/// One kernel on one shape, as `--json` writes it.
public struct KernelResult: Codable, Sendable, Equatable {
    public var name: String
    public var level: String
    public var shape: String
    public var rows: Int
    public var format: String
    /// The median.
    public var seconds: Double
    public var runs: Int
    /// Read at least; of kernels that stream, read and written.
    public var bytes: Double
    public var operations: Double
    /// The time in which this machine reads the bytes or computes, whichever is longer.
    public var limitSeconds: Double
    public var shareOfLimit: Double
    /// Which of the two the limit is.
    public var boundBy: Bound

    public enum Bound: String, Codable, Sendable {
        case reading, computing
    }

    enum CodingKeys: String, CodingKey {
        case name, level, shape, rows, format, seconds, runs, bytes, operations
        case limitSeconds = "limit_seconds"
        case shareOfLimit = "share_of_limit"
        case boundBy = "bound_by"
    }
}

/// What `lorry bench kernels --json` writes.
public struct KernelReport: Codable, Sendable, Equatable {
    public var limits: LimitsReport
    public var level: String
    public var threads: Int
    public var kernels: [KernelResult]

    public init(limits: MachineLimits, pool: WorkerPool, kernels: [KernelResult]) {
        self.limits = LimitsReport(limits)
        level = pool.level.rawValue
        threads = pool.threadCount
        self.kernels = kernels
    }
}

/// Measures kernels one by one, on operands that are in no cache where a model's would not be.
public final class KernelBench {
    /// What is measured, and how long.
    public struct Plan: Sendable {
        /// Operands are rotated over at least so many bytes: more than all caches hold.
        public var coldByteCount: Int
        /// How long each kernel is measured.
        public var effort: Duration
        /// Parts of the names of what is measured; empty measures all.
        public var names: [String]
        public var shapes = Shapes()

        public init(
            coldByteCount: Int, effort: Duration = .milliseconds(200), names: [String] = []
        ) {
            self.coldByteCount = coldByteCount
            self.effort = effort
            self.names = names
        }
    }

    /// The shapes of layers that are measured: those of real models unless changed.
    public struct Shapes: Sendable {
        public var rowCounts = [1, 4, 8, 16, 32, 128, 512]
        public var headRowCounts = [1, 32]
        public var linears: [Linear] = [
            .init(2048, 2048), .init(2048, 16_384), .init(8192, 2048), .init(576, 1536),
        ]
        public var head = Linear(2048, 128_256)
        /// Adapted layers.
        public var adapted = Linear(2048, 2048)
        public var ranks = [8, 16, 64]
        public var segments: [Segments] = [
            .init(32, rows: 1), .init(1, rows: 32), .init(8, rows: 128),
        ]
        public var attention = Attention()
        /// Row operators: rows and columns.
        public var rowOperators = [(rows: 32, width: 2048), (rows: 512, width: 2048)]
        public var activations = [(rows: 32, width: 8192), (rows: 512, width: 8192)]

        public init() {}
    }

    public struct Linear: Sendable {
        public var inFeatures: Int
        public var outFeatures: Int
        public init(_ inFeatures: Int, _ outFeatures: Int) {
            self.inFeatures = inFeatures
            self.outFeatures = outFeatures
        }
    }

    public struct Segments: Sendable {
        public var count: Int
        public var rowCount: Int
        public init(_ count: Int, rows: Int) {
            self.count = count
            rowCount = rows
        }
    }

    public struct Attention: Sendable {
        public var headCount = 32
        public var kvHeadCount = 8
        public var headDim = 64
        /// Decoding sequences and the positions that each sees.
        public var decode = [(sequences: 32, positions: 512), (sequences: 1, positions: 4096)]
        /// Rows of one sequence, and the positions before them.
        public var prefill = [(rows: 512, before: 0), (rows: 128, before: 1024)]
    }

    let plan: Plan
    let pool: WorkerPool
    private let limits: MachineLimits
    private let report: (KernelResult) -> Void
    public private(set) var results: [KernelResult] = []

    /// - Parameter report: told each result as it is there.
    public init(
        plan: Plan, limits: MachineLimits, pool: WorkerPool,
        report: @escaping (KernelResult) -> Void = { _ in }
    ) {
        self.plan = plan
        self.limits = limits
        self.pool = pool
        self.report = report
    }

    /// Measures everything that the plan asks for.
    public func run() throws {
        for format in WeightFormat.allCases { try measureMatmuls(format) }
        for format in OperandFormat.allCases { measureAdapters(format) }
        for format in OperandFormat.allCases { measureAttention(format) }
        measureRowOperators()
    }

    func isWanted(_ name: String) -> Bool {
        plan.names.isEmpty || plan.names.contains { name.contains($0) }
    }

    /// How many operands of a size are rotated so that none is in a cache when its turn comes.
    func copyCount(byteCount: Int) -> Int {
        max(1, (plan.coldByteCount + byteCount - 1) / max(1, byteCount))
    }

    /// One kernel on one shape.
    struct Case {
        var name: String
        var shape: String
        var rowCount: Int
        var format: String
        var work: Work
    }

    /// Runs the body once to wake the threads, then as often as fits the effort, three times at
    /// least; keeps the median.
    func measure(_ kernel: Case, _ body: (Int) -> Void) {
        let clock = ContinuousClock()
        body(0)
        let end = clock.now + plan.effort
        var seconds: [Double] = []
        while seconds.count < 3 || (clock.now < end && seconds.count < 5000) {
            let index = seconds.count + 1
            seconds.append(clock.measure { body(index) }.seconds)
        }
        let median = Samples(seconds).median
        let limit = kernel.work.limitSeconds(limits)
        let result = KernelResult(
            name: kernel.name, level: pool.level.rawValue, shape: kernel.shape,
            rows: kernel.rowCount, format: kernel.format, seconds: median, runs: seconds.count,
            bytes: kernel.work.byteCount, operations: kernel.work.operationCount,
            limitSeconds: limit, shareOfLimit: median > 0 ? limit / median : 0,
            boundBy: kernel.work.computingSeconds(limits) < limit ? .reading : .computing)
        results.append(result)
        report(result)
    }

    /// Random numbers from -1 to 1.
    static func numbers(_ count: Int, seed: UInt64 = 1) -> AlignedBuffer<Float> {
        let buffer = AlignedBuffer<Float>(count: count)
        var numbers = SeededNumbers(seed: seed)
        for index in 0..<count {
            buffer.pointer[index] = Float(Int64(bitPattern: numbers.next()) >> 40) / Float(1 << 23)
        }
        return buffer
    }

    /// Copies of one operand, each at a multiple of its byte count rounded up to cache lines.
    static func copies(
        _ count: Int, byteCount: Int, _ pack: (UnsafeMutableRawPointer) -> Void
    ) -> (buffer: AlignedBuffer<UInt8>, stride: Int) {
        let stride = (byteCount + 63) / 64 * 64
        let buffer = AlignedBuffer<UInt8>(count: count * stride)
        pack(UnsafeMutableRawPointer(buffer.pointer))
        for copy in 1..<max(count, 1) {
            (buffer.pointer + copy * stride).update(from: buffer.pointer, count: byteCount)
        }
        return (buffer, stride)
    }
}
