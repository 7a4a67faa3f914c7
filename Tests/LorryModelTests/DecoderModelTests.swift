import Foundation
import LorryModel
import LorryTensor
import Testing

@Suite struct DecoderModelTests {
    private let workers = WorkerPool(threadCount: 1)
    private let folder: TestFolder

    init() throws { folder = try TestFolder() }

    private func load(_ format: WeightFormat? = .f32) throws -> DecoderModel {
        try DecoderModel(directory: folder.url, format: format, pool: workers)
    }

    private func refusal() -> String {
        let error = #expect(throws: ModelError.self) { try load() }
        return error?.message ?? ""
    }

    private let tokens: [Int32] = [3, 17, 0, 31, 8]

    @Test func shardsEqualOneFile() throws {
        let whole = TinyModel.tensors()
        try TinyModel.write(to: folder, whole)
        let expected = try load().testLogits(tokens, workers)
        try FileManager.default.removeItem(at: folder.url.appending(path: "model.safetensors"))
        var map: [String: String] = [:]
        var shards = [CraftedTensors](repeating: CraftedTensors(), count: 3)
        for (index, (name, tensor)) in whole.tensors.sorted(by: { $0.key < $1.key }).enumerated() {
            shards[index % 3].tensors[name] = tensor
            map[name] = "part-\(index % 3).safetensors"
        }
        for (index, shard) in shards.enumerated() {
            try folder.write(shard.data(), "part-\(index).safetensors")
        }
        try folder.write(["weight_map": map], "model.safetensors.index.json")
        #expect(try load().testLogits(tokens, workers) == expected)

        // The same tensor in two shards.
        shards[1].tensors["lm_head.weight"] = whole.tensors["lm_head.weight"]
        shards[0].tensors["lm_head.weight"] = whole.tensors["lm_head.weight"]
        for (index, shard) in shards.enumerated() {
            try folder.write(shard.data(), "part-\(index).safetensors")
        }
        #expect(refusal().contains("'lm_head.weight' is in another shard"))
    }

    @Test(arguments: ["../x.safetensors", "/etc/passwd", "..", "a/b", "", "a\u{0}b"])
    func anIndexNamesOnlyFilesOfItsFolder(_ name: String) throws {
        try folder.write(TinyModel.configuration(), "config.json")
        try folder.write(["weight_map": ["w": name]], "model.safetensors.index.json")
        #expect(refusal().contains("weight_map.w: is not a file name"))
    }

    @Test func aFolderWithoutWeightsIsNamed() throws {
        try folder.write(TinyModel.configuration(), "config.json")
        #expect(refusal().contains("neither model.safetensors"))
        try folder.write(
            ["weight_map": ["w": "absent.safetensors"]], "model.safetensors.index.json")
        #expect(refusal().contains("absent.safetensors"))
        try folder.write([:], "model.safetensors.index.json")
        #expect(refusal().contains("weight_map: is missing"))
    }

    @Test func tensorsMustBeThoseOfTheConfiguration() throws {
        for name in [
            "model.norm.weight", "lm_head.weight", "model.layers.1.mlp.down_proj.weight",
            "model.layers.0.input_layernorm.weight",
        ] {
            var missing = TinyModel.tensors()
            missing.tensors[name] = nil
            try TinyModel.write(to: folder, missing)
            #expect(refusal().contains("'\(name)' is missing"))
            var misshapen = TinyModel.tensors()
            misshapen.add(name, [3, 5])
            try TinyModel.write(to: folder, misshapen)
            #expect(refusal().contains("'\(name)' has shape [3, 5]"))
        }
        var extra = TinyModel.tensors()
        extra.add("model.layers.0.self_attn.q_norm.weight", [4])
        try TinyModel.write(to: folder, extra)
        #expect(refusal().contains("q_norm"))
        try TinyModel.write(to: folder, TinyModel.tensors(biases: ["self_attn.q_proj"]))
        #expect(refusal().contains("q_proj.bias"))
        try TinyModel.write(to: folder, TinyModel.tensors(), ["attention_bias": true])
        #expect(refusal().contains("q_proj.bias' is missing"))
        var frequencies = TinyModel.tensors()
        frequencies.add("model.layers.0.self_attn.rotary_emb.inv_freq", [2])
        try TinyModel.write(to: folder, frequencies)
        #expect(try load().contextLength == 64)
    }

    /// Scales of int8 and int4 cannot hold what is not finite; of stacked tensors the one at fault
    /// is named.
    @Test(arguments: [
        ("model.layers.1.self_attn.k_proj.weight", Float.nan),
        ("model.layers.0.mlp.down_proj.weight", -.infinity), ("lm_head.weight", .infinity),
    ])
    func weightsThatCannotBeQuantizedAreNamed(name: String, value: Float) throws {
        var tensors = TinyModel.tensors()
        tensors.tensors[name]?.floats[5] = value
        try TinyModel.write(to: folder, tensors)
        for format in [WeightFormat.int8, .int4] {
            let error = #expect(throws: ModelError.self) { try load(format) }
            #expect(error?.message.contains("'\(name)' has elements that are NaN") == true)
        }
        _ = try load(.bf16)
    }

    @Test func weightsBeyondTheScalesOfInt4AreNamed() throws {
        var tensors = TinyModel.tensors()
        tensors.tensors["model.layers.1.mlp.up_proj.weight"]?.floats[7] = -0x1p60
        try TinyModel.write(to: folder, tensors)
        let error = #expect(throws: ModelError.self) { try load(.int4) }
        #expect(
            error?.message.hasPrefix("tensor 'model.layers.1.mlp.up_proj.weight' ") == true
                && error?.message.contains("2^60 or more") == true)
        _ = try load(.int8)
    }

    @Test func aTiedModelMayCarryItsHead() throws {
        let tied: [String: Any?] = ["tie_word_embeddings": true]
        try TinyModel.write(to: folder, TinyModel.tensors(hasHead: false), tied)
        let expected = try load().testLogits(tokens, workers)
        try TinyModel.write(to: folder, TinyModel.tensors(hasHead: true), tied)
        #expect(try load().testLogits(tokens, workers) == expected)
    }

    @Test func theFormatFollowsTheFile() throws {
        var tensors = TinyModel.tensors()
        try TinyModel.write(to: folder, tensors)
        #expect(try load(nil).format == .f32)
        for name in tensors.tensors.keys { tensors.tensors[name]?.dtype = "BF16" }
        try TinyModel.write(to: folder, tensors)
        #expect(try load(nil).format == .bf16)
        let short = try DecoderModel(
            directory: folder.url, format: nil, contextLength: 5, pool: workers)
        #expect(short.contextLength == 5)
    }
}

extension DecoderModel {
    /// Logits of every position, in one batch.
    func testLogits(
        _ tokens: [Int32], _ workers: WorkerPool, program: AdapterProgram? = nil
    ) -> [Float] {
        let layout = KVLayout(
            layerCount: configuration.layerCount, kvHeadCount: configuration.kvHeadCount,
            headDim: configuration.headDim, format: format.operandFormat)
        let forward = ForwardPass(
            model: self, kvLayout: layout, maximumRowCount: tokens.count, pool: workers)
        let blockCount = (tokens.count + KVLayout.blockSize - 1) / KVLayout.blockSize
        let arena = AlignedBuffer<UInt8>(count: blockCount * layout.blockByteCount)
        var batch = ForwardBatch()
        batch.append(
            tokens: tokens[...], startPosition: 0, blockTable: (0..<blockCount).map { Int32($0) },
            program: program, logits: tokens.indices)
        forward.run(batch, arena: UnsafeMutableRawPointer(arena.pointer))
        return forward.withLogits(of: batch.logitRows.indices) { logits in
            tokens.indices.flatMap { Array(logits.row($0)) }
        }
    }
}
