import Foundation
import LorryModel
import LorryTensor
import Testing

/// Adapters that are well-formed and would do harm once they are loaded.
@Suite struct HostileAdapterTests {
    private let workers = WorkerPool(threadCount: 1)

    private func model(in folder: TestFolder) throws -> DecoderModel {
        try TinyModel.write(to: folder)
        return try DecoderModel(directory: folder.url, format: .f32, pool: workers)
    }

    private func refusal(_ adapter: CraftedAdapter, of model: DecoderModel) throws -> AdapterError?
    {
        let folder = try TestFolder()
        try adapter.write(to: folder)
        return #expect(throws: AdapterError.self) {
            try AdapterCompiler.inspect(directory: folder.url, model: model, format: .f32)
        }
    }

    /// Rows of tokens that the base does not know would be read before the activation.
    @Test func activatedAdaptersHaveNoTables() throws {
        let folder = try TestFolder()
        let model = try model(in: folder)
        var adapter = CraftedAdapter()
        adapter.set("alora_invocation_tokens", [5, 9])
        let (prefix, rows) = ("base_model.model.", TinyModel.vocabularySize + 4)
        for name in ["model.embed_tokens", "lm_head"] {
            adapter.file.add("\(prefix)\(name).weight", [rows, 16])
        }
        #expect(try refusal(adapter, of: model)?.message.contains("before alora") == true)
    }

    @Test func virtualTokensLeaveRoomInTheContext() throws {
        let folder = try TestFolder()
        let model = try model(in: folder)
        var adapter = CraftedAdapter()
        adapter.configuration = ["peft_type": "PROMPT_TUNING", "num_virtual_tokens": 64]
        adapter.file.tensors = [:]
        adapter.file.add("prompt_embeddings", [64, 16])
        #expect(try refusal(adapter, of: model)?.message.contains("64 virtual tokens") == true)
    }

    /// OLoRA of more parts than the weight has.
    @Test func orthogonalPartsEndWithTheWeight() throws {
        let folder = try TestFolder()
        let model = try model(in: folder)
        var adapter = CraftedAdapter(modules: ["v_proj"], rank: 16)
        adapter.set("target_modules", ["v_proj"])
        adapter.set("r", 16)
        adapter.set("init_lora_weights", "olora")
        let files = try TestFolder()
        try adapter.write(to: files)
        let program = try AdapterCompiler.compile(directory: files.url, model: model)
        #expect(program.description.method == "olora")
    }

    /// Numbers are looked at when an adapter is registered with a model at hand.
    @Test func indicesOutsideOfAMatrixAreFound() throws {
        let folder = try TestFolder()
        let model = try model(in: folder)
        var adapter = CraftedAdapter()
        adapter.configuration = [
            "peft_type": "SHIRA", "r": 2, "target_modules": ["q_proj"], "peft_version": "0.21.2",
        ]
        adapter.file.tensors = [:]
        for layer in 0..<2 {
            let path = "\(CraftedAdapter.prefix)\(layer).self_attn.q_proj"
            adapter.file.add("\(path).shira_weight", [2])
            adapter.file.tensors["\(path).shira_indices"] = .init(
                shape: [2, 2], floats: [0, 1, 3, 16], dtype: "I64")
        }
        #expect(try refusal(adapter, of: model)?.message.contains("[1, 16]") == true)
    }

    /// FRoD's sizes repeat what the shape of V says.
    @Test(arguments: [[16, 16], [16, 17]])
    func sizesThatContradictAreFound(size: [Float]) throws {
        let folder = try TestFolder()
        let model = try model(in: folder)
        var adapter = CraftedAdapter()
        adapter.configuration = [
            "peft_type": "FROD", "target_modules": ["q_proj"], "save_projection": true,
        ]
        adapter.file.tensors = [:]
        let category = "self_attn_q_proj"
        var basis = [Float](repeating: 0, count: 256)
        for index in 0..<16 { basis[index * 17] = 1 }
        adapter.file.tensors["base_model.frod_V.\(category)"] = .init(
            shape: [16, 16], floats: basis)
        adapter.file.tensors["base_model.frod_s_indices.\(category)"] = .init(
            shape: [2, 1], floats: [3, 4], dtype: "I64")
        adapter.file.tensors["base_model.frod_s_size.\(category)"] = .init(
            shape: [2], floats: size, dtype: "I64")
        for layer in 0..<2 {
            let path = "\(CraftedAdapter.prefix)\(layer).self_attn.q_proj"
            adapter.file.add("\(path).frod_lambda_l", [16])
            adapter.file.add("\(path).frod_lambda_s_values", [1])
        }
        let files = try TestFolder()
        try adapter.write(to: files)
        let inspect = {
            try AdapterCompiler.inspect(directory: files.url, model: model, format: .f32)
        }
        if size == [16, 16] {
            #expect(try inspect().method == "frod")
        } else {
            let error = #expect(throws: AdapterError.self) { try inspect() }
            #expect(error?.message.contains("s_size.\(category)' is [16, 17]") == true)
        }
    }

    /// Finite numbers may give infinite ones when they are computed with.
    @Test func computedNumbersAreFinite() throws {
        let folder = try TestFolder()
        let model = try model(in: folder)
        var adapter = CraftedAdapter()
        adapter.set("kasa_config", ["beta": 0.1])
        for layer in 0..<2 {
            for module in ["q_proj", "v_proj"] {
                let path = "\(CraftedAdapter.prefix)\(layer).self_attn.\(module)"
                adapter.file.add("\(path).lora_diag", [2], value: 1e38)
                adapter.file.tensors["\(path).lora_B.weight"]?.floats[0] = 1e38
            }
        }
        #expect(try refusal(adapter, of: model)?.message.contains("not finite") == true)
    }
}
