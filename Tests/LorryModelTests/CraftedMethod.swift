import Foundation
import LorryModel
import LorryTensor
import Testing

/// A folder of any method for the tiny model, with tensors at q_proj and down_proj of both layers.
struct CraftedMethod {
    var configuration: [String: Any]
    var file = CraftedTensors()

    static let modules = ["self_attn.q_proj", "mlp.down_proj"]
    static let paths = (0..<TinyModel.layerCount).flatMap { layer in
        modules.map { "model.layers.\(layer).\($0)" }
    }

    init(_ type: String, _ fields: [String: Any] = [:]) {
        configuration = [
            "peft_type": type, "task_type": "CAUSAL_LM", "peft_version": "0.21.2",
            "target_modules": ["q_proj", "down_proj"],
        ].merging(fields) { $1 }
    }

    /// Adds a tensor to each module.
    func adding(
        _ name: String, dtype: String = "F32", _ shape: (_ out: Int, _ into: Int) -> [Int]
    ) -> CraftedMethod {
        var result = self
        for path in Self.paths {
            let (out, into) = Self.dimensions(path)
            result.file.add("base_model.model.\(path).\(name)", shape(out, into), dtype: dtype)
        }
        return result
    }

    static func dimensions(_ path: String) -> (out: Int, into: Int) {
        let (out, into) = TinyModel.dimensions(String(path.split(separator: ".")[4]))
        return (out, into)
    }

    /// A module's tensor.
    func floats(_ path: String, _ name: String) -> [Float] {
        file.tensors["base_model.model.\(path).\(name)"]?.floats ?? []
    }

    func write(to folder: TestFolder) throws {
        try folder.write(configuration, "adapter_config.json")
        try folder.write(file.data(), "adapter_model.safetensors")
    }

    @discardableResult func inspect() throws -> AdapterDescription {
        let folder = try TestFolder()
        try write(to: folder)
        try folder.write(TinyModel.configuration(), "config.json")
        return try AdapterCompiler.inspect(
            directory: folder.url, configuration: try ModelConfiguration(directory: folder.url),
            format: .f32)
    }

    /// The message of the refusal at registration; empty where there is none.
    var refusal: String {
        do { try inspect() } catch let error as AdapterError { return error.message } catch {
            return "not an adapter's error: \(error)"
        }
        return ""
    }

    /// One module of the base, which a test changes as the adapter should.
    struct Module {
        let path: String
        let out: Int
        let into: Int
        var weight: [Float]
        var bias: [Float]

        /// Adds to every number of the weight.
        mutating func add(_ delta: (_ row: Int, _ column: Int) -> Float) {
            for row in 0..<out {
                for column in 0..<into { weight[row * into + column] += delta(row, column) }
            }
        }

        /// `W ← W M`, M `[into, into]`.
        mutating func multiply(by matrix: [Float]) {
            var product = [Float](repeating: 0, count: out * into)
            for row in 0..<out {
                for k in 0..<into {
                    for column in 0..<into {
                        product[row * into + column] +=
                            weight[row * into + k] * matrix[k * into + column]
                    }
                }
            }
            weight = product
        }
    }

    /// Holds the adapter's logits against those of the base with the change folded in.
    func check(_ label: String, _ fold: (inout Module) -> Void) throws {
        let workers = WorkerPool(threadCount: 1)
        let tokens: [Int32] = [3, 17, 0, 31, 8, 8, 1, 30, 22, 5]
        let biased: [String: Any?] = ["attention_bias": true, "mlp_bias": true]
        func model(_ tensors: CraftedTensors) throws -> DecoderModel {
            let folder = try TestFolder()
            try TinyModel.write(to: folder, tensors, biased)
            return try DecoderModel(directory: folder.url, format: .f32, pool: workers)
        }
        var tensors = TinyModel.tensors(biases: Set(TinyModel.modules))
        let base = try model(tensors)
        let folder = try TestFolder()
        try write(to: folder)
        let program = try AdapterCompiler.compile(directory: folder.url, model: base)
        for path in Self.paths {
            let (out, into) = Self.dimensions(path)
            var module = Module(
                path: path, out: out, into: into,
                weight: tensors.tensors["\(path).weight"]?.floats ?? [],
                bias: tensors.tensors["\(path).bias"]?.floats ?? [])
            fold(&module)
            tensors.tensors["\(path).weight"]?.floats = module.weight
            tensors.tensors["\(path).bias"]?.floats = module.bias
        }
        let expected = try model(tensors).testLogits(tokens, workers)
        let found = base.testLogits(tokens, workers, program: program)
        let untouched = base.testLogits(tokens, workers)
        let error = zip(found, expected).map { abs($0 - $1) }.max() ?? 1
        let change = zip(found, untouched).map { abs($0 - $1) }.max() ?? 0
        #expect(error < 2e-5, "\(label)")
        #expect(change > max(1e-4, 10 * error), "\(label): the adapter changes nothing")
    }
}
