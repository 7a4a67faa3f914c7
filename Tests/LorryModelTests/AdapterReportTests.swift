import Foundation
import LorryModel
import LorryTensor
import Testing

@Suite struct AdapterReportTests {
    private func report(_ adapter: CraftedAdapter) throws -> AdapterReport {
        let folder = try TestFolder()
        try adapter.write(to: folder)
        try folder.write(TinyModel.configuration(), "config.json")
        return AdapterCompiler.report(
            directory: folder.url, configuration: try ModelConfiguration(directory: folder.url),
            format: .f32)
    }

    @Test func whatAnAdapterTouchesAndCosts() throws {
        var adapter = CraftedAdapter(modules: ["q_proj", "v_proj"], rank: 2)
        adapter.add("1.mlp.down_proj", rank: 2)
        adapter.set(
            "target_modules", ["q_proj", "v_proj", "model.layers.1.mlp.down_proj"])
        let report = try report(adapter)
        #expect(report.problems == [])
        #expect(report.places == ["layer 0: q_proj v_proj", "layer 1: q_proj v_proj down_proj"])
        let rank = 2
        let layer = 2 * rank * (2 * 16 + 16 + 8)
        #expect(report.cost?.operationCount == 2 * layer + 2 * rank * (24 + 16))
        #expect(report.cost?.operationCount == report.description?.operationCount)
        #expect(report.cost?.readByteCount == report.description?.byteCount)
        let weights = 2 * (2 * 16 * 16 + 2 * 8 * 16 + 3 * 24 * 16) + 32 * 16
        #expect(report.baseCost?.operationCount == 2 * weights)
        #expect(report.baseCost?.readByteCount == 4 * weights)
        #expect(
            try self.report(CraftedAdapter()).places == ["layers 0-1: q_proj v_proj"])
    }

    @Test func everythingThatIsWrongIsSaid() throws {
        var adapter = CraftedAdapter(modules: ["q_proj", "v_proj"], rank: 2)
        adapter.set("brand_new_option", true)
        adapter.set("use_qalora", true)
        adapter.file.add("base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", [2, 16])
        adapter.file.add("base_model.model.stranger", [2])
        let prefix = CraftedAdapter.prefix
        adapter.file.tensors["\(prefix)0.self_attn.q_proj.lora_A.weight"]?.shape = [1, 32]
        adapter.file.tensors["\(prefix)1.self_attn.v_proj.lora_B.weight"] = nil
        adapter.file.tensors["\(prefix)1.self_attn.q_proj.lora_B.weight"]?.floats[3] = .nan
        let found = try report(adapter)
        #expect(found.description == nil)
        let wanted = [
            "lora_B.weight' has a NaN", "brand_new_option: is not known", "use_qalora: QALoRA",
            "0.self_attn.q_proj.lora_A.weight' has", "1.self_attn.v_proj has no lora_B",
            "layers.7.self_attn.q_proj.lora_A.weight' matches no", "stranger' matches no",
        ]
        for part in wanted {
            #expect(
                found.problems.count(where: { $0.contains(part) }) == 1,
                "\(part): \(found.problems)")
        }
        #expect(found.problems.count == wanted.count, "\(found.problems)")
    }

    @Test func bothFilesAreLookedAt() throws {
        let folder = try TestFolder()
        try folder.write(Data("{".utf8), "adapter_config.json")
        try folder.write(Data("short".utf8), "adapter_model.safetensors")
        try folder.write(TinyModel.configuration(), "config.json")
        let report = AdapterCompiler.report(
            directory: folder.url, configuration: try ModelConfiguration(directory: folder.url),
            format: .f32)
        #expect(report.problems.count == 2)
        #expect(report.problems[0].hasPrefix("adapter_config.json"))
        #expect(report.problems[1].hasPrefix("adapter_model.safetensors"))
    }
}
