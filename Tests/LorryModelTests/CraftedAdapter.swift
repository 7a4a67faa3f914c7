import Foundation
import LorryModel
import LorryTensor

/// A LoRA folder for the tiny model, which a test changes in one place.
struct CraftedAdapter {
    var configuration: [String: Any] = [
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none",
        "target_modules": ["q_proj", "v_proj"], "init_lora_weights": true, "use_rslora": false,
    ]
    var file = CraftedTensors()

    static let prefix = "base_model.model.model.layers."

    /// - Parameter modules: short names; with tensors in both layers.
    init(modules: [String] = ["q_proj", "v_proj"], rank: Int = 2, layers: Range<Int> = 0..<2) {
        for layer in layers {
            for module in TinyModel.modules {
                let name = String(module.split(separator: ".")[1])
                if modules.contains(name) { add("\(layer).\(module)", rank: rank) }
            }
        }
    }

    /// - Parameter module: as `0.self_attn.q_proj`.
    mutating func add(_ module: String, rank: Int) {
        let name = String(module.split(separator: ".")[2])
        let (out, into) = TinyModel.dimensions(name)
        file.add("\(Self.prefix)\(module).lora_A.weight", [rank, into])
        file.add("\(Self.prefix)\(module).lora_B.weight", [out, rank])
    }

    mutating func set(_ field: String, _ value: Any?) { configuration[field] = value }

    func write(to folder: TestFolder) throws {
        try folder.write(configuration, "adapter_config.json")
        try folder.write(file.data(), "adapter_model.safetensors")
    }

    /// Inspects it as an adapter of the tiny model.
    ///
    /// - Parameter changes: to the model's configuration.
    func inspect(_ changes: [String: Any?] = [:]) throws -> AdapterDescription {
        let folder = try TestFolder()
        try write(to: folder)
        try folder.write(TinyModel.configuration(changes), "config.json")
        return try AdapterCompiler.inspect(
            directory: folder.url, configuration: try ModelConfiguration(directory: folder.url),
            format: .f32)
    }
}
