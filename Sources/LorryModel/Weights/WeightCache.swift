import Foundation
import LorryTensor
import Synchronization

/// Packed weights kept on disk, so that a later start need not pack them again.
///
/// One file per model folder, `<hash of the folder's path>-<format>.weights`. It is used only if
/// its content is proven to be what packing would make: the checkpoint's bytes are the same (by
/// the files' identities, else by their hash), the matrices have the same tensors, shapes and
/// layout, every chunk has its checksum, and the first panel of each matrix, packed anew, is equal.
///
/// Several processes may share the folder. The cache never keeps a model from loading: what is
/// wrong is reported, and the weights are packed.
public final class WeightCache: Sendable {
    /// What happened to a file, for the log.
    public enum Event: Sendable, Equatable {
        case used(path: String, byteCount: Int)
        /// The weights are packed instead, and the file is replaced.
        case refused(path: String, reason: String)
        case written(path: String, byteCount: Int, duration: Duration)
        case notWritten(path: String, reason: String)
        /// Writing was ended before its end, and left no file.
        case cancelled(path: String)
        /// A file of the same model that is not needed any more.
        case removed(path: String)
    }

    /// What a load left to be written.
    private struct Pending {
        var memory: PackedMemory
        var header: WeightCacheHeader
        var source: CheckpointSource
        var name: String
        /// What there is to do.
        var task: Task

        enum Task {
            /// The memory was packed, and the file is to be written.
            case write
            /// The memory is a mapped file; its header is to be replaced where it is old.
            case move(replacesHeader: Bool)
        }
    }

    private let folder: String
    private let report: @Sendable (Event) -> Void
    private let willPerform: @Sendable (WeightCacheStep) throws(WeightCacheFault) -> Void
    private let pending = Mutex<Pending?>(nil)

    /// - Parameters:
    ///   - folder: created when the first file is written; its parent must be there.
    ///   - report: called on the thread that loads or writes.
    public convenience init(folder: URL, report: @escaping @Sendable (Event) -> Void) {
        self.init(folder: folder, report: report) { _ in }
    }

    package init(
        folder: URL, report: @escaping @Sendable (Event) -> Void,
        willPerform: @escaping @Sendable (WeightCacheStep) throws(WeightCacheFault) -> Void
    ) {
        self.folder = folder.path
        self.report = report
        self.willPerform = willPerform
    }

    // MARK: - Loading

    /// The packed matrices of a plan: from the folder's file, or packed and kept for
    /// `finishPending`.
    ///
    /// - Throws: what packing throws; a file that does not fit is reported, not thrown.
    func matrices(
        of plan: PackingPlan, shards: [MappedFile], directory: URL, format: WeightFormat,
        pool: WorkerPool, progress: (Double) -> Void
    ) throws(ModelError) -> [PackedMatrix] {
        let model = realpath(directory.path, nil).map { path in
            defer { free(path) }
            return String(cString: path)
        }
        let source = CheckpointSource(shards: shards)
        let header = WeightCacheHeader(
            model: model ?? directory.path, files: source.files, digest: "",
            matrices: plan.cachedMatrices, payloadByteCount: plan.byteCount,
            checksumOfChecksums: "")
        let name = Self.prefix(header.model) + format.rawValue + ".weights"
        do throws(WeightCacheFault) {
            if let memory = try read(plan, header, source, name, pool, progress) {
                report(.used(path: path(name), byteCount: memory.byteCount))
                return plan.matrices(in: memory)
            }
        } catch {
            report(.refused(path: path(name), reason: error.reason))
        }
        let isSettled = source.settle()
        let (memory, matrices) = try plan.pack(pool: pool, progress: progress)
        if isSettled {
            pending.withLock {
                $0 = Pending(
                    memory: memory, header: header, source: source, name: name, task: .write)
            }
        } else {
            report(.notWritten(path: path(name), reason: "the model's files have just changed"))
        }
        return matrices
    }

    /// - Returns: nil where there is no file.
    private func read(
        _ plan: PackingPlan, _ wanted: WeightCacheHeader, _ source: CheckpointSource,
        _ name: String, _ pool: WorkerPool, _ progress: (Double) -> Void
    ) throws(WeightCacheFault) -> PackedMemory? {
        guard let file = try WeightCacheReader.open(path(name)) else { return nil }
        guard file.header.model == wanted.model else {
            throw WeightCacheFault("belongs to \(file.header.model)")
        }
        guard file.header.matrices == wanted.matrices,
            file.header.payloadByteCount == wanted.payloadByteCount
        else { throw WeightCacheFault("has other matrices or another layout") }
        var isSettled = true
        let isSame = file.header.files == wanted.files
        if !isSame {
            isSettled = source.settle()
            let digest = source.digest { count, body in pool.run(taskCount: count, body) }
            guard digest == file.header.digest else {
                throw WeightCacheFault("was made before the model's files changed")
            }
        }
        let memory = try file.mapPayload(pool: pool, progress: progress)
        if let tensor = plan.firstDifference(in: memory, pool: pool) {
            throw WeightCacheFault("differs from '\(tensor)' packed anew")
        }
        var header = file.header
        header.files = wanted.files
        pending.withLock {
            $0 = Pending(
                memory: memory, header: header, source: source, name: name,
                task: .move(replacesHeader: !isSame && isSettled))
        }
        return memory
    }

    // MARK: - After loading

    /// Bytes of weights that are mapped and will take memory of their own in `finishPending`.
    public var mappedByteCount: Int {
        pending.withLock { $0.map { $0.memory.isMapped ? $0.memory.byteCount : 0 } ?? 0 }
    }

    /// Does what the last load left for later, while the model is in use already.
    ///
    /// Packed weights are written to the folder, which takes as long as the disk takes; files of
    /// the same model in other formats are removed. Weights that were found there are mapped, which
    /// is the fastest start: now they move to huge pages, which a step reads faster and the system
    /// does not take away.
    ///
    /// - Parameter isCancelled: asked now and then; true ends the work and leaves nothing half.
    public func finishPending(isCancelled: () -> Bool = { false }) {
        guard
            let work = pending.withLock({ pending in
                defer { pending = nil }
                return pending
            })
        else { return }
        do throws(WeightCacheFault) {
            switch work.task {
            case .write:
                try write(work, isCancelled)
            case .move(let replacesHeader):
                _ = work.memory.moveToHugePages(isCancelled: isCancelled)
                if replacesHeader, work.source.isUnchanged {
                    try WeightCacheWriter(folder: folder, willPerform: willPerform)
                        .replaceHeader(work.header, name: work.name)
                }
            }
        } catch {
            report(
                isCancelled()
                    ? .cancelled(path: path(work.name))
                    : .notWritten(path: path(work.name), reason: error.reason))
        }
    }

    private func write(_ work: Pending, _ isCancelled: () -> Bool) throws(WeightCacheFault) {
        let start = ContinuousClock.now
        var header = work.header
        header.digest = work.source.digest { count, body in
            for index in 0..<count where !isCancelled() { body(index) }
        }
        guard !isCancelled() else { throw WeightCacheFault("cancelled") }
        // The bytes hashed must be the bytes packed.
        guard work.source.isUnchanged else {
            throw WeightCacheFault("the model's files changed while they were loaded")
        }
        let writer = WeightCacheWriter(folder: folder, willPerform: willPerform)
        try writer.write(
            work.memory, header: header, name: work.name, isCancelled: isCancelled)
        report(
            .written(
                path: path(work.name), byteCount: work.memory.byteCount,
                duration: ContinuousClock.now - start))
        for path in writer.removeOthers(prefix: Self.prefix(header.model), except: work.name) {
            report(.removed(path: path))
        }
    }

    private func path(_ name: String) -> String { "\(folder)/\(name)" }

    /// What the names of all files of one model folder begin with.
    private static func prefix(_ model: String) -> String {
        Checksum.hexadecimal(Checksum.of(model)) + "-"
    }
}
