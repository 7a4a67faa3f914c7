import Foundation
import LorryModel
import LorryTensor
import Testing

@Suite struct CompilationCacheTests {
    private let workers = WorkerPool(threadCount: 1)
    private let folder: TestFolder
    private let model: DecoderModel

    init() throws {
        folder = try TestFolder()
        try TinyModel.write(to: folder)
        model = try DecoderModel(directory: folder.url, format: .f32, pool: workers)
    }

    /// An adapter whose numbers depend on the seed, with all else equal.
    private func adapter(_ seed: Float = 1, rank: Int = 2) -> CraftedAdapter {
        var adapter = CraftedAdapter(rank: rank)
        adapter.set("r", rank)
        let tensors = adapter.file.tensors
        adapter.file.tensors = tensors.mapValues { tensor in
            var tensor = tensor
            tensor.floats = tensor.floats.map { $0 * seed }
            return tensor
        }
        return adapter
    }

    private func compile(
        _ adapter: CraftedAdapter, _ cache: CompilationCache?, format: OperandFormat = .bf16,
        checksums: AdapterChecksums? = nil
    ) throws -> [UInt8] {
        let folder = try TestFolder()
        try adapter.write(to: folder)
        let program = try AdapterCompiler.compile(
            directory: folder.url, model: model, format: format, checksums: checksums,
            cache: cache)
        return program.operandBytes
    }

    @Test func plansServeAdaptersThatAreLaidOutAlike() throws {
        let cache = CompilationCache()
        let one = try compile(adapter(), cache)
        #expect(cache.planCount == 1)
        #expect(try one == compile(adapter(), nil))
        let two = try compile(adapter(2), cache)
        #expect(cache.planCount == 1)
        #expect(try two == compile(adapter(2), nil))
        #expect(one != two)
        // Another format, header or configuration is another plan.
        #expect(
            try compile(adapter(), cache, format: .f32) == compile(adapter(), nil, format: .f32))
        #expect(cache.planCount == 2)
        #expect(try compile(adapter(rank: 3), cache) == compile(adapter(rank: 3), nil))
        #expect(cache.planCount == 3)
        var louder = adapter()
        louder.set("lora_alpha", 64)
        _ = try compile(louder, cache)
        #expect(cache.planCount == 4)
    }

    @Test func holdsNoMoreThanItsCapacity() throws {
        let cache = CompilationCache()
        for alpha in 1...70 {
            var adapter = adapter()
            adapter.set("lora_alpha", alpha)
            _ = try compile(adapter, cache)
        }
        #expect(cache.planCount == 64)
    }

    @Test func whatDoesNotFitIsRefusedEachTime() throws {
        let cache = CompilationCache()
        var bad = adapter()
        bad.set("use_dora", true)
        for _ in 0..<2 {
            #expect(throws: AdapterError.self) { try compile(bad, cache) }
        }
        #expect(cache.planCount == 0)
    }

    @Test func memoryOfEvictedProgramsIsUsedAgain() throws {
        let cache = CompilationCache()
        let bytes = try compile(adapter(3), cache, format: .int8)
        // The program is gone; its memory, with other bytes in it, serves the next.
        let kept = cache.spareByteCount
        #expect(kept >= bytes.count)
        _ = try compile(adapter(5), cache, format: .int8)
        #expect(cache.spareByteCount == kept)
        #expect(try compile(adapter(3), cache, format: .int8) == bytes)
        #expect(cache.spareByteCount == kept)
    }

    @Test func changedFilesAreNotServed() throws {
        let files = try TestFolder()
        try adapter().write(to: files)
        func checksum(_ name: String) throws -> ContentChecksum {
            try Data(contentsOf: files.url.appending(path: name)).withUnsafeBytes {
                ContentChecksum(of: $0)
            }
        }
        let noted = AdapterChecksums(
            configuration: try checksum("adapter_config.json"),
            weights: try checksum("adapter_model.safetensors"))
        let cache = CompilationCache()
        func load() throws {
            _ = try AdapterCompiler.compile(
                directory: files.url, model: model, checksums: noted, cache: cache)
        }
        try load()
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            let path = files.url.appending(path: name)
            let data = try Data(contentsOf: path)
            // The last byte of the weights is a number's: its file stays well-formed.
            var changed = data
            changed[changed.count - 1] ^= 1
            try changed.write(to: path)
            let error = #expect(throws: AdapterError.self) { try load() }
            #expect(error?.kind == .damaged)
            #expect(error?.message.contains(name) == true)
            try data.write(to: path)
            try load()
        }
    }

    /// The largest rank that is served, against the same change folded into the weights.
    @Test(arguments: OperandFormat.allCases) func rank512(format: OperandFormat) throws {
        var adapter = CraftedAdapter(modules: ["down_proj"], rank: 512)
        adapter.set("r", 512)
        adapter.set("lora_alpha", 16)
        adapter.set("target_modules", ["down_proj"])
        let files = try TestFolder()
        try adapter.write(to: files)
        let program = try AdapterCompiler.compile(
            directory: files.url, model: model, format: format)
        #expect(program.description.rank == 512)
        var folded = TinyModel.tensors()
        let (out, into) = TinyModel.dimensions("down_proj")
        for layer in 0..<2 {
            let name = "\(CraftedAdapter.prefix)\(layer).mlp.down_proj"
            let a = adapter.file.tensors["\(name).lora_A.weight"]?.floats ?? []
            let b = adapter.file.tensors["\(name).lora_B.weight"]?.floats ?? []
            for row in 0..<out {
                for column in 0..<into {
                    let sum = (0..<512).reduce(Float(0)) {
                        $0 + b[row * 512 + $1] * a[$1 * into + column]
                    }
                    folded.tensors["model.layers.\(layer).mlp.down_proj.weight"]?
                        .floats[row * into + column] += sum / 32
                }
            }
        }
        let reference = try TestFolder()
        try TinyModel.write(to: reference, folded)
        let expected = try DecoderModel(directory: reference.url, format: .f32, pool: workers)
            .testLogits([3, 1, 2, 7], workers)
        let found = model.testLogits([3, 1, 2, 7], workers, program: program)
        let untouched = model.testLogits([3, 1, 2, 7], workers)
        let error = zip(found, expected).map { abs($0 - $1) }.max() ?? 1
        let change = zip(untouched, expected).map { abs($0 - $1) }.max() ?? 0
        #expect(change > 1e-3)
        #expect(error < (format == .f32 ? 1e-3 : 0.05) * change, "\(error) of \(change)")
    }
}
