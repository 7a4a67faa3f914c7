import Foundation
import LorryModel
import LorryTensor
import Synchronization
import Testing

/// Loads the tiny model through a cache and looks at what the cache did.
@Suite struct WeightCacheTests {
    private let model: TestFolder
    private let state: TestFolder
    private let workers = WorkerPool(threadCount: 2)
    private let tokens: [Int32] = [3, 1, 4, 1, 5, 9, 2, 6]

    init() throws {
        model = try TestFolder()
        state = try TestFolder()
        try TinyModel.write(to: model)
    }

    private final class Journal: Sendable {
        private let list = Mutex<[WeightCache.Event]>([])
        func add(_ event: WeightCache.Event) { list.withLock { $0.append(event) } }
        var events: [WeightCache.Event] { list.withLock { $0 } }
    }

    private struct Load {
        let logits: [Float]
        let model: DecoderModel
        let cache: WeightCache
        let journal: Journal

        /// Whether the weights came from the cache.
        var isHit: Bool {
            journal.events.contains { if case .used = $0 { true } else { false } }
        }

        var refusal: String? {
            journal.events.lazy.compactMap {
                if case .refused(_, let reason) = $0 { reason } else { nil }
            }.first
        }

        var failure: String? {
            journal.events.lazy.compactMap {
                if case .notWritten(_, let reason) = $0 { reason } else { nil }
            }.first
        }
    }

    private var folder: URL { state.url.appending(path: "weights") }

    private func load(
        _ format: WeightFormat = .f32,
        willPerform: @escaping @Sendable (WeightCacheStep) throws(WeightCacheFault) -> Void = {
            _ in
        }
    ) throws -> Load {
        let journal = Journal()
        let cache = WeightCache(
            folder: folder, report: { journal.add($0) }, willPerform: willPerform)
        let loaded = try DecoderModel(
            directory: model.url, format: format, pool: workers, cache: cache)
        return Load(
            logits: loaded.testLogits(tokens, workers), model: loaded, cache: cache,
            journal: journal)
    }

    @discardableResult private func loadAndWrite(_ format: WeightFormat = .f32) throws -> Load {
        let load = try load(format)
        load.cache.finishPending()
        return load
    }

    private func files() throws -> [String] {
        guard FileManager.default.fileExists(atPath: folder.path) else { return [] }
        return try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    }

    private func onlyFile() throws -> URL {
        let names = try files()
        return folder.appending(path: try #require(names.count == 1 ? names.first : nil))
    }

    private func fresh(_ format: WeightFormat = .f32) throws -> [Float] {
        try DecoderModel(directory: model.url, format: format, pool: workers)
            .testLogits(tokens, workers)
    }

    /// Replaces bytes of a file in place.
    private func patch(_ url: URL, at offset: Int, _ change: (inout UInt8) -> Void) throws {
        let handle = try FileHandle(forUpdating: url)
        defer { try? handle.close() }
        try handle.seek(toOffset: UInt64(offset))
        var byte = try #require(try handle.read(upToCount: 1)?.first)
        change(&byte)
        try handle.seek(toOffset: UInt64(offset))
        try handle.write(contentsOf: Data([byte]))
    }

    // MARK: - Hits

    @Test(arguments: WeightFormat.allCases) func aHitHasTheBitsOfAFreshPacking(
        _ format: WeightFormat
    ) throws {
        let first = try loadAndWrite(format)
        #expect(!first.isHit && first.refusal == nil && first.failure == nil)
        let second = try loadAndWrite(format)
        #expect(second.isHit)
        #expect(second.logits == first.logits)
        #expect(try second.logits == fresh(format))
        // By now the weights have moved from the mapped file to memory, and the file may go.
        try Data().write(to: onlyFile())
        #expect(second.model.testLogits(tokens, workers) == first.logits)
    }

    @Test func whatIsNotInTheCacheComesFromTheCheckpoint() throws {
        let tensors = TinyModel.tensors(
            biases: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], hasHead: false)
        try TinyModel.write(
            to: model, tensors,
            [
                "tie_word_embeddings": true, "model_type": "qwen2",
                "architectures": ["Qwen2ForCausalLM"],
            ])
        let first = try loadAndWrite()
        let second = try load()
        #expect(second.isHit && second.logits == first.logits && second.cache.mappedByteCount > 0)
        #expect(try second.logits == fresh())
    }

    @Test func progressEndsAtOne() throws {
        try loadAndWrite()
        for cache in [nil, WeightCache(folder: folder) { _ in }] {
            var shares: [Double] = []
            _ = try DecoderModel(
                directory: model.url, format: .f32, pool: workers, cache: cache
            ) { shares.append($0) }
            #expect(shares == shares.sorted())
            #expect(shares.first == 0 && shares.last == 1)
        }
    }

    @Test func onlyTheLastFormatOfAModelIsKept() throws {
        try loadAndWrite(.f32)
        let other = try loadAndWrite(.bf16)
        #expect(!other.isHit)
        #expect(try onlyFile().lastPathComponent.hasSuffix("-bf16.weights"))
        #expect(
            other.journal.events.contains { if case .removed = $0 { true } else { false } })
        #expect(try load(.bf16).isHit)
    }

    @Test func anUnchangedCopyOfTheModelNeedsNoPacking() throws {
        try loadAndWrite()
        // Another inode and other times, the same bytes.
        let shard = model.url.appending(path: "model.safetensors")
        try Data(contentsOf: shard).write(to: shard)
        let rehashed = try loadAndWrite()
        #expect(rehashed.isHit && rehashed.failure == nil)
        // Its identity was noted, so that the next start need not hash.
        let text = try String(decoding: Data(contentsOf: onlyFile()).prefix(8192), as: UTF8.self)
        var status = stat()
        #expect(stat(shard.path, &status) == 0)
        #expect(text.contains("\"inode\":\(status.st_ino)"))
        #expect(try load().isHit)
    }

    // MARK: - Damage and change

    @Test func everyDamageIsFoundAndMended() throws {
        let expected = try loadAndWrite().logits
        let file = try onlyFile()
        let byteCount = try Data(contentsOf: file).count
        let payload = 2 << 20
        // The magic, the version, the header's length, its checksum, the header, the payload's
        // first, middle and last bytes, the checksums.
        let places = [
            0, 7, 8, 12, 16, 24, 300, payload, (payload + byteCount) / 2, byteCount - 9,
            byteCount - 8, byteCount - 1,
        ]
        for place in places {
            try patch(file, at: place) { $0 ^= 0x10 }
            let load = try loadAndWrite()
            #expect(!load.isHit, "byte \(place)")
            #expect(load.refusal != nil, "byte \(place)")
            #expect(load.logits == expected)
            #expect(try self.load().isHit, "byte \(place) was not mended")
        }
        for count in [0, 5, 23, 24, 500, payload - 1, payload + 10, byteCount - 1] {
            #expect(truncate(file.path, off_t(count)) == 0)
            let load = try loadAndWrite()
            #expect(!load.isHit && load.refusal != nil, "\(count) bytes")
            #expect(load.logits == expected)
            #expect(try self.load().isHit)
        }
    }

    @Test func aForeignFileIsRefused() throws {
        try loadAndWrite()
        let file = try onlyFile()
        try Data("hello".utf8).write(to: file)
        #expect(try loadAndWrite().refusal == "is no file of packed weights")
        try FileManager.default.removeItem(at: file)
        #expect(symlink("/dev/zero", file.path) == 0)
        let linked = try loadAndWrite()
        #expect(linked.refusal != nil && linked.failure == nil)
        #expect(try load().isHit)
    }

    /// A file whose name says bf16 and whose content is f32.
    @Test func aFileOfAnotherFormatIsRefused() throws {
        try loadAndWrite(.f32)
        let file = try onlyFile()
        let name = file.lastPathComponent.replacing("-f32", with: "-bf16")
        try FileManager.default.moveItem(at: file, to: folder.appending(path: name))
        let load = try loadAndWrite(.bf16)
        #expect(load.refusal == "has other matrices or another layout")
        #expect(try load.logits == fresh(.bf16))
    }

    @Test func aChangedCheckpointIsNeverServedFromTheCache() throws {
        let before = try loadAndWrite().logits
        let shard = model.url.appending(path: "model.safetensors")
        var times = stat()
        #expect(stat(shard.path, &times) == 0)
        let middle = Int(times.st_size) / 2
        try patch(shard, at: middle) { $0 ^= 0x40 }
        // Puts the time of modification back; inode and size are the same anyway.
        var stamps = [times.st_atim, times.st_mtim]
        #expect(utimensat(AT_FDCWD, shard.path, &stamps, 0) == 0)
        let changed = try load()
        #expect(!changed.isHit)
        #expect(changed.refusal == "was made before the model's files changed")
        #expect(changed.logits != before)
        #expect(try changed.logits == fresh())
    }

    @Test func aChangeWhileTheModelLoadsIsNotWritten() throws {
        let load = try load()
        try patch(model.url.appending(path: "model.safetensors"), at: 5000) { $0 ^= 1 }
        load.cache.finishPending()
        #expect(load.failure == "the model's files changed while they were loaded")
        #expect(try files() == [])
    }

    // MARK: - Writing

    /// Stops before each step in turn, as a full disk would, and looks at what is left.
    @Test func aWriteThatFailsLeavesNothingHalf() throws {
        let expected = try fresh()
        let steps: [WeightCacheStep] = [
            .createFolder, .createFile, .allocate, .write(chunk: 0), .writeHeader, .syncFile,
            .rename,
        ]
        for step in steps {
            let load = try load { current throws(WeightCacheFault) in
                if current == step { throw WeightCacheFault("no space left") }
            }
            load.cache.finishPending()
            #expect(load.failure == "no space left", "\(step)")
            #expect(try files() == [], "\(step)")
        }
        // From the rename on the file is whole.
        let last = try load { step throws(WeightCacheFault) in
            if step == .syncFolder { throw WeightCacheFault("no space left") }
        }
        last.cache.finishPending()
        let next = try load()
        #expect(next.isHit && next.logits == expected)
    }

    @Test func weightsThatCannotBePackedLeaveNoFile() throws {
        var tensors = TinyModel.tensors()
        tensors.tensors["lm_head.weight"]?.floats[3] = .nan
        try TinyModel.write(to: model, tensors)
        let cache = WeightCache(folder: folder) { _ in }
        #expect(throws: ModelError.self) {
            try DecoderModel(directory: model.url, format: .int8, pool: workers, cache: cache)
        }
        cache.finishPending()
        #expect(try files() == [])
    }

    @Test func aCancelledWriteLeavesNothing() throws {
        let load = try load()
        load.cache.finishPending { true }
        #expect(load.failure == nil)
        #expect(
            load.journal.events.contains { if case .cancelled = $0 { true } else { false } })
        #expect(try files() == [])
    }

    /// A process that dies in the middle leaves a temporary file that nobody has locked.
    @Test func whatACrashLeftIsRemovedAndWhatIsBeingWrittenStays() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let dead = folder.appending(path: "dead.partial")
        let live = folder.appending(path: "live.partial")
        try Data("half".utf8).write(to: dead)
        try Data("half".utf8).write(to: live)
        let writer = open(live.path, O_RDWR)
        defer { close(writer) }
        #expect(flock(writer, LOCK_EX | LOCK_NB) == 0)
        #expect(try loadAndWrite().failure == nil)
        let names = try files()
        #expect(names.contains("live.partial") && !names.contains("dead.partial"))
        #expect(try load().isHit)
    }

    @Test func aFolderThatCannotBeMadeIsOnlyReported() throws {
        try state.write(Data(), "weights")
        let load = try loadAndWrite()
        #expect(load.failure != nil)
        #expect(try load.logits == fresh())
    }

    @Test func severalLoadersShareTheFolder() async throws {
        let expected = try fresh()
        let (modelURL, cacheURL, tokens) = (model.url, folder, tokens)
        try await withThrowingTaskGroup(of: [Float].self) { group in
            for _ in 0..<4 {
                group.addTask {
                    let workers = WorkerPool(threadCount: 1)
                    var logits: [Float] = []
                    for _ in 0..<8 {
                        let cache = WeightCache(folder: cacheURL) { _ in }
                        let model = try DecoderModel(
                            directory: modelURL, format: .f32, pool: workers, cache: cache)
                        cache.finishPending()
                        logits = model.testLogits(tokens, workers)
                    }
                    return logits
                }
            }
            for try await logits in group { #expect(logits == expected) }
        }
        #expect(try load().isHit)
        #expect(try files().count == 1)
    }
}
