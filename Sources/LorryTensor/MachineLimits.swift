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
    ///   - effort: how long each limit is measured at least; five times as long where the threads
    ///     together stay far below what they reach one by one, as beside other busy programs.
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
                pool: pool, bufferByteCount: bufferByteCount, effort: effort),
            f32: peak(.f32), bf16: peak(.bf16), int8: peak(.int8))
    }

    /// Operations per second of all threads together.
    private static func measurePeak(
        _ loop: UnsafePointer<ck_peak>, pool: WorkerPool, effort: Duration
    ) -> Double {
        let rounds = 10_000
        // Tasks and passes are short, so that some pass meets no other program on any core.
        let taskCount = pool.threadCount * 16
        let seconds = bestSeconds(effort: effort, pool: pool, taskCount: taskCount) { _, _ in
            loop.pointee.run(rounds)
        }
        return Double(loop.pointee.operations * rounds * taskCount) / seconds
    }

    /// Bytes per second of all threads together; parameters as for `measure`.
    public static func measureReading(
        pool: WorkerPool, bufferByteCount: Int = 512 << 20, effort: Duration
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
        // The whole buffer at a time, about as much as a step reads: shorter bursts come out faster
        // than memory can go on for.
        let seconds = bestSeconds(effort: effort, pool: pool, taskCount: taskCount) { pass, task in
            sums.pointer[task] = ck_read(
                levels[pass % levels.count], buffer.pointer + task * wordCount, wordCount)
        }
        return Double(taskCount * taskByteCount) / seconds
    }

    /// The time of the shortest pass over all tasks.
    private static func bestSeconds(
        effort: Duration, pool: WorkerPool, taskCount: Int, _ task: (Int, Int) -> Void
    ) -> Double {
        let clock = ContinuousClock()
        var passCount = 0
        func best(for duration: Duration, _ pass: (Int) -> Void) -> Duration {
            let end = clock.now + duration
            var best = Duration.seconds(1 << 20)
            repeat {
                best = min(best, clock.measure { pass(passCount) })
                passCount += 1
            } while clock.now < end
            return best
        }
        // What one thread reaches tells what all could, were no other program there.
        let alone = best(for: effort / 4) { pass in
            for index in 0..<taskCount { task(pass, index) }
        }
        var together = alone
        let start = clock.now
        while clock.now - start < effort * 5 {
            let isNear = together < alone / pool.threadCount * 1.1
            if isNear, clock.now - start >= effort { break }
            together = min(
                together,
                best(for: effort / 8) { pass in
                    pool.run(taskCount: taskCount) { task(pass, $0) }
                })
        }
        return together / .seconds(1)
    }
}
