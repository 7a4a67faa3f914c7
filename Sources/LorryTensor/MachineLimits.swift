import CKernels

/// Kinds of arithmetic that kernels are measured against.
public enum Arithmetic: String, Sendable, CaseIterable {
    case f32
    case bf16
    case int8

    var native: ck_format {
        switch self {
        case .f32: .CK_FORMAT_F32
        case .bf16: .CK_FORMAT_BF16
        case .int8: .CK_FORMAT_INT8
        }
    }
}

/// What a machine can do at most, measured with all threads of a pool.
public struct MachineLimits: Sendable, Equatable {
    /// The most that one instruction, or a short group, computes from registers alone.
    public struct Peak: Sendable, Equatable {
        /// A product counts as two operations: the multiplication and the addition.
        public var operationsPerSecond: Double
        /// What was measured: a level without bf16 or byte products falls back to wider ones.
        public var instruction: String

        public init(operationsPerSecond: Double, instruction: String) {
            self.operationsPerSecond = operationsPerSecond
            self.instruction = instruction
        }
    }

    /// The level whose instructions were measured: the best that the machine has.
    public var level: KernelLevel
    public var threadCount: Int
    /// Reading memory that is in no cache.
    public var readBytesPerSecond: Double
    public var f32: Peak
    public var bf16: Peak
    public var int8: Peak

    public init(
        level: KernelLevel, threadCount: Int, readBytesPerSecond: Double, f32: Peak, bf16: Peak,
        int8: Peak
    ) {
        self.level = level
        self.threadCount = threadCount
        self.readBytesPerSecond = readBytesPerSecond
        self.f32 = f32
        self.bf16 = bf16
        self.int8 = int8
    }

    public func peak(_ arithmetic: Arithmetic) -> Peak {
        switch arithmetic {
        case .f32: f32
        case .bf16: bf16
        case .int8: int8
        }
    }

    /// Measures with all threads of the pool, each limit as the best of many short passes.
    ///
    /// Takes the best level that the machine has, whatever the pool's.
    ///
    /// - Parameters:
    ///   - bufferByteCount: memory to read in one pass; several times the largest cache.
    ///   - effort: how long each limit is measured.
    public static func measure(
        pool: WorkerPool, bufferByteCount: Int = 512 << 20, effort: Duration = .milliseconds(400)
    ) -> MachineLimits {
        let level = KernelLevel.supported.last ?? .portable
        func peak(_ arithmetic: Arithmetic) -> Peak {
            let loop = ck_peak_loop(level.native, arithmetic.native)
            return Peak(
                operationsPerSecond: measurePeak(loop, pool: pool, effort: effort),
                instruction: String(cString: loop.pointee.instruction))
        }
        return MachineLimits(
            level: level, threadCount: pool.threadCount,
            readBytesPerSecond: measureReading(
                bufferByteCount: bufferByteCount, pool: pool, effort: effort),
            f32: peak(.f32), bf16: peak(.bf16), int8: peak(.int8))
    }

    /// Operations per second of all threads together.
    private static func measurePeak(
        _ loop: UnsafePointer<ck_peak>, pool: WorkerPool, effort: Duration
    ) -> Double {
        let rounds = 10_000
        // Tasks and passes are short, so that some pass meets no other program on any core.
        let taskCount = pool.threadCount * 16
        let seconds = bestSeconds(effort: effort) { _ in
            pool.run(taskCount: taskCount) { _ in loop.pointee.run(rounds) }
        }
        return Double(loop.pointee.operations * rounds * taskCount) / seconds
    }

    /// Bytes per second of all threads together.
    private static func measureReading(
        bufferByteCount: Int, pool: WorkerPool, effort: Duration
    ) -> Double {
        let taskByteCount = 2 << 20
        let taskCount = max(1, bufferByteCount / taskByteCount)
        let wordCount = taskByteCount / MemoryLayout<UInt64>.stride
        let buffer = AlignedBuffer<UInt64>(count: taskCount * wordCount)
        let sums = AlignedBuffer<UInt64>(count: taskCount)
        // Pages that were never written may all be one page of zeros.
        pool.run(taskCount: taskCount) { task in
            (buffer.pointer + task * wordCount).update(repeating: UInt64(task), count: wordCount)
        }
        // The widest loads are not the fastest on every machine.
        let levels = KernelLevel.supported.map(\.native)
        // A pass reads the next part of the buffer: it is long out of the caches when its turn
        // comes again.
        let passTaskCount = min(taskCount, max(pool.threadCount * 8, 16))
        let seconds = bestSeconds(effort: effort) { pass in
            let level = levels[pass % levels.count]
            pool.run(taskCount: passTaskCount) { index in
                let task = (pass * passTaskCount + index) % taskCount
                sums.pointer[task] = ck_read(level, buffer.pointer + task * wordCount, wordCount)
            }
        }
        return Double(passTaskCount * taskByteCount) / seconds
    }

    /// The shortest of the passes that fit `effort`, of ten at least; the first wakes the threads.
    private static func bestSeconds(effort: Duration, _ pass: (Int) -> Void) -> Double {
        let clock = ContinuousClock()
        let end = clock.now + effort
        var best = Duration.seconds(1 << 20)
        pass(0)
        var index = 0
        while index < 10 || clock.now < end {
            best = min(best, clock.measure { pass(index) })
            index += 1
        }
        return best / .seconds(1)
    }
}
