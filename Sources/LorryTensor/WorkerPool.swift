import CKernels

/// A fork-join pool that runs kernels, with the level of kernels that it runs.
///
/// The calling thread takes part. Tasks are claimed one by one, so tasks of unequal length balance;
/// results must not depend on which thread runs a task, and with the kernels of this target they do
/// not. Idle workers spin for some tens of microseconds and then sleep. A worker that is not awake
/// when a run starts is not waited for.
public final class WorkerPool: Sendable {
    /// Threads that take part in a run, the caller's included.
    public let threadCount: Int
    /// The kernels that operators given this pool use.
    public let level: KernelLevel

    // Safe because the table is a constant of the program.
    nonisolated(unsafe) let kernels: UnsafePointer<ck_table>
    // Safe because ck_pool_run refuses a second run until the first has ended.
    nonisolated(unsafe) private let native: OpaquePointer
    // Safe because only the thread that may call `run` touches it, between its runs.
    nonisolated(unsafe) private var preparedRows = AlignedBuffer<UInt8>(count: 1 << 16)
    // Safe for the same reason; a run's tasks only read it.
    nonisolated(unsafe) private var pieceEnds = AlignedBuffer<Int>(count: 256)

    /// Starts `threadCount - 1` workers.
    ///
    /// - Parameters:
    ///   - threadCount: at least 1.
    ///   - level: one that this machine supports.
    ///   - pinned: whether each worker is bound to a CPU of its own (Linux), the first being left
    ///     to the caller.
    public init(threadCount: Int, level: KernelLevel = Kernels.level, pinned: Bool = false) {
        precondition(threadCount >= 1, "a pool needs a thread")
        guard let kernels = level.table else {
            preconditionFailure("kernel level \(level.rawValue) cannot run on this machine")
        }
        guard let native = ck_pool_create(threadCount - 1, pinned) else {
            preconditionFailure("the system refused \(threadCount - 1) worker threads")
        }
        self.threadCount = threadCount
        self.level = level
        self.kernels = kernels
        self.native = native
    }

    /// Memory for rows in the form that a matmul's kernel takes, valid until the next call. Allocates
    /// only when more is asked for than ever before.
    func rowScratch(byteCount: Int) -> UnsafeMutableRawPointer {
        if byteCount > preparedRows.count { preparedRows = AlignedBuffer(count: byteCount) }
        return UnsafeMutableRawPointer(preparedRows.pointer)
    }

    deinit {
        ck_pool_destroy(native)
    }

    /// Runs `body(0) … body(taskCount - 1)`, each once, in any order and on any thread, and returns
    /// when all are done.
    ///
    /// One run at a time: a call from inside `body`, or from a second thread meanwhile, traps.
    public func run(taskCount: Int, _ body: (Int) -> Void) {
        precondition(taskCount >= 0, "negative task count")
        // Safe because the call returns after the last task.
        let started = runClosure(native, taskCount, body)
        precondition(started, "WorkerPool.run called while a run was under way")
    }

    /// Cuts `0 ..< count` into ranges of about `minimum` or more and runs `body` on each.
    ///
    /// A count up to `minimum` runs on the calling thread alone.
    func runRanges(count: Int, minimum: Int, _ body: (Range<Int>) -> Void) {
        guard count > 0 else { return }
        let size = max(minimum, (count + threadCount * 4 - 1) / (threadCount * 4))
        run(taskCount: (count + size - 1) / size) { task in
            body(task * size..<min((task + 1) * size, count))
        }
    }

    /// Runs `body(group, piece)` for every piece of every group, `pieceCount(group)` of them.
    func runPieces(
        groupCount: Int, pieceCount: (Int) -> Int, body: (Int, Int) -> Void
    ) {
        guard groupCount > 0 else { return }
        if groupCount > pieceEnds.count { pieceEnds = AlignedBuffer(count: 2 * groupCount) }
        let ends = pieceEnds.pointer
        var total = 0
        for group in 0..<groupCount {
            total += pieceCount(group)
            ends[group] = total
        }
        run(taskCount: total) { task in
            // The first group that ends past the task.
            var low = 0
            var high = groupCount - 1
            while low < high {
                let middle = (low + high) / 2
                if ends[middle] > task { high = middle } else { low = middle + 1 }
            }
            body(low, task - (low > 0 ? ends[low - 1] : 0))
        }
    }
}

/// `ck_pool_run` for a closure that does not escape. It is not in the header, since only Swift's
/// calling convention passes a closure without allocating a copy of it.
@_silgen_name("ck_pool_run_closure")
private func runClosure(_ pool: OpaquePointer, _ taskCount: Int, _ body: (Int) -> Void) -> Bool
