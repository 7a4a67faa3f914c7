import Foundation
import LorryModel
import LorryTensor
import Testing

@Suite struct AdapterCompilerTests {
    private static let fixture = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "lorryTests/Fixtures/llama")

    @Test(arguments: [
        ("adamss", "ADAMSS"), ("lily", "LILY"), ("psoft", "PSOFT"), ("psoft_cn", "PSOFT"),
        ("replication", "layer_replication"),
    ])
    func unsupportedAdaptersAreRefusedByName(_ name: String, _ part: String) throws {
        let configuration = try ModelConfiguration(
            directory: Self.fixture.appending(path: "base"))
        let error = #expect(throws: AdapterError.self) {
            try AdapterCompiler.inspect(
                directory: Self.fixture.appending(path: "unsupported/\(name)"),
                configuration: configuration, format: .f32)
        }
        #expect(error?.kind == .unsupported)
        #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
        #expect(error?.message.hasPrefix("adapter_") == true, "it names the file")
    }

    @Test func describesWhatItRead() throws {
        let folder = Self.fixture.appending(path: "adapters/lora_r64_q")
        let configuration = try ModelConfiguration(
            directory: Self.fixture.appending(path: "base"))
        let found = try AdapterCompiler.inspect(
            directory: folder, configuration: configuration, format: .f32)
        #expect(found.method == "lora")
        #expect(found.rank == 64)
        #expect(found.targets == ["q_proj"])
        // Three layers of A [64, 64] and B [64, 64].
        #expect(found.parameterCount == 3 * 2 * 64 * 64)
        #expect(found.byteCount == found.parameterCount * 4)
        let workers = WorkerPool(threadCount: 1)
        let model = try DecoderModel(
            directory: Self.fixture.appending(path: "base"), format: .f32, pool: workers)
        let program = try AdapterCompiler.compile(directory: folder, model: model)
        #expect(program.byteCount == found.byteCount)
        #expect(program.description == found)
    }

    @Test func filesThatAreMissingOrNoAdapterAreNamed() throws {
        let folder = try TestFolder()
        try TinyModel.write(to: folder)
        let configuration = try ModelConfiguration(directory: folder.url)
        func error() -> AdapterError? {
            #expect(throws: AdapterError.self) {
                try AdapterCompiler.inspect(
                    directory: folder.url, configuration: configuration, format: .f32)
            }
        }
        #expect(error()?.kind == .unreadable)
        #expect(error()?.message.contains("adapter_config.json") == true)
        for text in ["", "{", "[]", "{\"r\":1,\"r\":2}"] {
            try folder.write(Data(text.utf8), "adapter_config.json")
            #expect(error()?.kind == .invalid)
            #expect(error()?.message.contains("adapter_config.json") == true)
        }
        try folder.write(CraftedAdapter().configuration, "adapter_config.json")
        #expect(error()?.message.contains("adapter_model.safetensors: is missing") == true)
        try folder.write(Data([0x80, 2]), "adapter_model.bin")
        #expect(error()?.message.contains("pickle") == true)
        try folder.write(Data([1, 2, 3]), "adapter_model.safetensors")
        #expect(error()?.kind == .invalid)
        try folder.write(["r": 2], "adapter_config.json")
        try folder.write(CraftedAdapter().file.data(), "adapter_model.safetensors")
        #expect(error()?.message.contains("peft_type") == true)
    }

    @Test(arguments: ["F32", "F16", "BF16"])
    func inspectionFindsNumbersThatAreNone(_ dtype: String) throws {
        for bad in [Float.nan, .infinity, -.infinity] where dtype != "F16" {
            var adapter = CraftedAdapter()
            let name = "\(CraftedAdapter.prefix)1.self_attn.v_proj.lora_B.weight"
            adapter.file.tensors[name]?.dtype = dtype
            adapter.file.tensors[name]?.floats[15] = bad
            let error = #expect(throws: AdapterError.self) { try adapter.inspect() }
            #expect(error?.message.contains(name) == true)
            #expect(error?.kind == .invalid)
        }
        var fine = CraftedAdapter()
        for name in fine.file.tensors.keys { fine.file.tensors[name]?.dtype = dtype }
        #expect(try fine.inspect().targets == ["q_proj", "v_proj"])
    }
}
