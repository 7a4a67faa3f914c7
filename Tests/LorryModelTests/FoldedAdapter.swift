import Foundation
import LorryModel
import LorryTensor
import Testing

/// An adapter of the tiny model, and what it makes of the weights: its program must give the logits
/// of a base whose weights were changed by a plain computation.
struct FoldedAdapter {
    var adapter = CraftedAdapter(modules: [])
    /// Targets as `q_proj`, in both layers.
    let modules: [String]

    init(_ type: String, _ modules: [String], _ fields: [String: Any] = [:]) {
        self.modules = modules
        adapter.configuration = [
            "peft_type": type, "task_type": "CAUSAL_LM", "target_modules": modules,
        ]
        for (field, value) in fields { adapter.set(field, value) }
    }

    /// Paths of the targets in the model's order, as `model.layers.0.self_attn.q_proj`.
    var paths: [String] {
        (0..<TinyModel.layerCount).flatMap { layer in
            TinyModel.modules.filter { modules.contains(Self.name($0)) }
                .map { "model.layers.\(layer).\($0)" }
        } + (modules.contains("lm_head") ? ["lm_head"] : [])
    }

    static func name(_ path: String) -> String { String(path.split(separator: ".").last ?? "") }

    static func dimensions(_ path: String) -> (out: Int, into: Int) {
        if path == "lm_head" { return (TinyModel.vocabularySize, TinyModel.hiddenSize) }
        let (out, into) = TinyModel.dimensions(name(path))
        return (out, into)
    }

    /// Adds a tensor to every target.
    mutating func add(_ name: String, _ shape: (_ out: Int, _ into: Int) -> [Int]) {
        for path in paths {
            let (out, into) = Self.dimensions(path)
            adapter.file.add("base_model.model.\(path).\(name)", shape(out, into))
        }
    }

    func floats(_ path: String, _ name: String) -> [Float] {
        adapter.file.tensors["base_model.model.\(path).\(name)"]?.floats ?? []
    }

    func shared(_ name: String) -> [Float] {
        adapter.file.tensors["base_model.\(name)"]?.floats ?? []
    }

    /// - Parameter delta: of a target's path and weight, row-major `[out, in]`.
    func check(
        _ label: String = "", _ delta: (_ path: String, _ weight: [Float]) -> [Float]
    ) throws {
        let workers = WorkerPool(threadCount: 1)
        let tokens: [Int32] = [3, 17, 0, 31, 8, 8, 1, 30, 22]
        func model(_ tensors: CraftedTensors) throws -> DecoderModel {
            let folder = try TestFolder()
            try TinyModel.write(to: folder, tensors)
            return try DecoderModel(directory: folder.url, format: .f32, pool: workers)
        }
        let base = TinyModel.tensors()
        let plain = try model(base)
        let folder = try TestFolder()
        try adapter.write(to: folder)
        let program = try AdapterCompiler.compile(
            directory: folder.url, model: plain, format: .f32)
        var folded = base
        for path in paths {
            let weight = try #require(base.tensors["\(path).weight"]).floats
            folded.tensors["\(path).weight"]?.floats = zip(weight, delta(path, weight)).map(+)
        }
        let expected = try model(folded).testLogits(tokens, workers)
        let found = plain.testLogits(tokens, workers, program: program)
        let untouched = plain.testLogits(tokens, workers)
        let error = zip(found, expected).map { abs($0 - $1) }.max() ?? 1
        let change = zip(found, untouched).map { abs($0 - $1) }.max() ?? 0
        #expect(error < 1e-4, "\(label)")
        #expect(change > 10 * error, "\(label): the program changed nothing")
    }

    /// Every tensor is needed and of one shape, none is left over, and no option is passed over.
    ///
    /// - Parameter optional: parts of names of tensors that may be missing.
    func checkRefusals(optional: [String] = []) throws {
        _ = try adapter.inspect()
        func refusal(_ change: (inout CraftedAdapter) -> Void) -> String {
            var changed = adapter
            change(&changed)
            let error = #expect(throws: AdapterError.self) { try changed.inspect() }
            return error?.message ?? ""
        }
        #expect(refusal { $0.set("use_surprise", true) }.contains("use_surprise"))
        #expect(refusal { $0.set("target_modules", ["k_proj"]) }.contains("target_modules"))
        let stray = "base_model.model.model.layers.0.self_attn.q_proj.stray"
        #expect(refusal { $0.file.add(stray, [4]) }.contains(stray))
        for name in adapter.file.tensors.keys.sorted() {
            if !optional.contains(where: name.contains) {
                #expect(!refusal { $0.file.tensors[name] = nil }.isEmpty, "without \(name)")
            }
            let shape = (adapter.file.tensors[name]?.shape ?? []) + [1]
            let reason = refusal { $0.file.tensors[name]?.shape = shape }
            #expect(reason.contains(name), "\(name) of shape \(shape)")
        }
    }
}

/// `A · B`, row-major `[m, n]`, of A `[m, k]` and B `[k, n]`.
func plainProduct(_ a: [Float], _ b: [Float], _ m: Int, _ n: Int, _ k: Int) -> [Float] {
    var result = [Float](repeating: 0, count: m * n)
    for row in 0..<m {
        for column in 0..<n {
            for inner in 0..<k {
                result[row * n + column] += a[row * k + inner] * b[inner * n + column]
            }
        }
    }
    return result
}
