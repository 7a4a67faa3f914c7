import Foundation
import LorryModel
import LorryTensor
import Testing

/// Several adapters at once against their deltas, folded into the base's weights.
@Suite struct AdapterSumTests {
    private let workers = WorkerPool(threadCount: 2)
    private let tokens: [Int32] = [3, 17, 0, 31, 8, 8, 1, 30, 22, 5, 6, 7, 9, 11, 13, 15, 2, 4]
    private static var biased: [String: Any?] { ["attention_bias": true, "mlp_bias": true] }
    private static let allModules = TinyModel.modules.map {
        String($0.split(separator: ".")[1])
    }

    private var base: CraftedTensors { TinyModel.tensors(biases: Set(TinyModel.modules)) }

    private func model(_ tensors: CraftedTensors) throws -> DecoderModel {
        let folder = try TestFolder()
        try TinyModel.write(to: folder, tensors, Self.biased)
        return try DecoderModel(directory: folder.url, format: .f32, pool: workers)
    }

    /// Names differ, so that the numbers do.
    private func adapter(
        _ modules: [String], rank: Int, alpha: Double, seed: Float
    ) -> CraftedAdapter {
        var adapter = CraftedAdapter(modules: modules, rank: rank)
        adapter.set("target_modules", modules)
        adapter.set("r", rank)
        adapter.set("lora_alpha", alpha)
        adapter.file.tensors = adapter.file.tensors.mapValues { tensor in
            var changed = tensor
            changed.floats = tensor.floats.map {
                ($0 * 8 * seed).truncatingRemainder(dividingBy: 1) * 0.4
            }
            return changed
        }
        return adapter
    }

    private func fold(
        _ adapter: CraftedAdapter, rank: Int, scale: Float, into tensors: inout CraftedTensors
    ) throws {
        let prefix = "base_model.model."
        for (name, down) in adapter.file.tensors where name.hasSuffix(".lora_A.weight") {
            let path = name.dropFirst(prefix.count).dropLast(".lora_A.weight".count)
            let up = try #require(adapter.file.tensors["\(prefix)\(path).lora_B.weight"])
            let (out, into) = (up.shape[0], down.shape[1])
            for row in 0..<out {
                for column in 0..<into {
                    let product = (0..<rank).reduce(Float(0)) {
                        $0 + up.floats[row * rank + $1] * down.floats[$1 * into + column]
                    }
                    tensors.tensors["\(path).weight"]?.floats[row * into + column] +=
                        scale * product
                }
            }
            if let bias = adapter.file.tensors["\(prefix)\(path).lora_B.bias"] {
                for row in 0..<out {
                    tensors.tensors["\(path).bias"]?.floats[row] += scale * bias.floats[row]
                }
            }
        }
    }

    private func summand(
        _ adapter: CraftedAdapter, _ scale: Float, _ folders: inout [TestFolder],
        name: String = "some"
    ) throws -> AdapterSummand {
        let folder = try TestFolder()
        try adapter.write(to: folder)
        folders.append(folder)
        return AdapterSummand(name: name, directory: folder.url, checksums: nil, scale: scale)
    }

    @Test func aSumIsItsDeltasFoldedIntoTheBase() throws {
        let first = adapter(["q_proj", "v_proj"], rank: 2, alpha: 4, seed: 1)
        let second = adapter(Self.allModules, rank: 3, alpha: 3, seed: 1.7)
        var third = adapter(["q_proj", "down_proj"], rank: 5, alpha: 10, seed: 2.9)
        third.set("lora_bias", true)
        for (name, tensor) in third.file.tensors where name.hasSuffix("lora_B.weight") {
            let bias = String(name.dropLast("weight".count)) + "bias"
            third.file.add(bias, [tensor.shape[0]])
        }
        let plain = try model(base)
        var folders: [TestFolder] = []
        let summands = [
            try summand(first, 0.5, &folders), try summand(second, -1.25, &folders),
            try summand(third, 0.75, &folders),
        ]
        let program = try AdapterCompiler.compile(sumOf: summands, model: plain, format: .f32)
        var folded = base
        try fold(first, rank: 2, scale: 0.5 * 2, into: &folded)
        try fold(second, rank: 3, scale: -1.25, into: &folded)
        try fold(third, rank: 5, scale: 0.75 * 2, into: &folded)
        let expected = try model(folded).testLogits(tokens, workers)
        let found = plain.testLogits(tokens, workers, program: program)
        let untouched = plain.testLogits(tokens, workers)
        let error = zip(found, expected).map { abs($0 - $1) }.max() ?? 1
        let change = zip(found, untouched).map { abs($0 - $1) }.max() ?? 0
        #expect(error < 1e-4)
        #expect(change > 0.01)
        let description = try AdapterCompiler.describe(
            sumOf: summands, configuration: plain.configuration, format: .f32)
        #expect(description == program.description)
        #expect(description.rank == 10)
        #expect(description.targets == Self.allModules.sorted())
    }

    /// Operators without files, and what a factor does to each.
    @Test func everyKindOfDeltaIsScaled() throws {
        let plain = try model(base)
        let width = TinyModel.hiddenSize
        let module = BaseModule.linear(layer: 0, .query)
        func numbers(_ count: Int, _ seed: Int) -> [Float] {
            (0..<count).map { Float(($0 * 37 + seed * 11) % 29) / 290 - 0.05 }
        }
        let kinds: [(inout AdapterProgramBuilder, Float) -> Void] = [
            { builder, scale in
                builder.addDense(
                    at: module, matrix: .constant(numbers(width * width, 1)), scale: scale)
            },
            { builder, scale in
                builder.addKronecker(
                    at: module,
                    shape: .init(leftOut: 2, leftIn: 2, rightOut: width / 2, rightIn: width / 2),
                    left: .constant(numbers(4, 2)), right: .constant(numbers(width * width / 4, 3)),
                    scale: scale)
            },
            { builder, scale in
                builder.addCirculant(
                    at: module, blockSize: 4,
                    columns: .constant(numbers(width * width / 4, 4).map { $0 * scale }))
            },
            { builder, scale in
                builder.addBias(at: module, vector: .constant(numbers(width, 5)), scale: scale)
            },
            { builder, scale in
                builder.addEmbeddingLowRank(
                    rank: 2, down: .constant(numbers(TinyModel.vocabularySize * 2, 6)),
                    up: .constant(numbers(width * 2, 7)), scale: scale)
            },
        ]
        for (index, kind) in kinds.enumerated() {
            var once = AdapterProgramBuilder(configuration: plain.configuration)
            kind(&once, 1)
            var scaled = AdapterProgramBuilder(configuration: plain.configuration)
            kind(&scaled, 2.5)
            var sum = AdapterProgramBuilder(configuration: plain.configuration)
            try sum.add(once, method: "test", scale: 3, file: 0)
            try sum.add(once, method: "test", scale: -0.5, file: 0)
            let found = plain.testLogits(
                tokens, workers,
                program: try sum.build(method: "test", format: .f32, model: plain))
            let expected = plain.testLogits(
                tokens, workers,
                program: try scaled.build(method: "test", format: .f32, model: plain))
            let untouched = plain.testLogits(tokens, workers)
            let error = zip(found, expected).map { abs($0 - $1) }.max() ?? 1
            let change = zip(found, untouched).map { abs($0 - $1) }.max() ?? 0
            #expect(error < 1e-4 && change > 1e-3, "kind \(index): \(error), \(change)")
        }
    }

    @Test func whatDoesNotAddUpIsRefusedByName() throws {
        let plain = try model(base)
        var decomposed = adapter(["q_proj"], rank: 2, alpha: 4, seed: 1)
        decomposed.set("use_dora", true)
        for layer in 0..<TinyModel.layerCount {
            decomposed.file.add(
                "\(CraftedAdapter.prefix)\(layer).self_attn.q_proj.lora_magnitude_vector",
                [TinyModel.hiddenSize])
        }
        var saving = adapter(["q_proj"], rank: 2, alpha: 4, seed: 1)
        saving.set("modules_to_save", ["norm"])
        saving.file.add("base_model.model.model.norm.weight", [TinyModel.hiddenSize])
        var activated = adapter(["q_proj"], rank: 2, alpha: 4, seed: 1)
        activated.set("alora_invocation_tokens", [3])
        for (refused, reason) in [
            (decomposed, "scales what linear layers give"),
            (saving, "replaces the weights of norms"),
            (activated, "acts from some tokens on only"),
        ] {
            var folders: [TestFolder] = []
            let good = adapter(["q_proj"], rank: 2, alpha: 4, seed: 1)
            let summands = [
                try summand(good, 1, &folders), try summand(refused, 1, &folders, name: "culprit"),
            ]
            let error = try #require(throws: AdapterError.self) {
                try AdapterCompiler.compile(sumOf: summands, model: plain, format: .f32)
            }
            #expect(error.kind == .unsupported)
            #expect(error.message.hasPrefix("culprit: "), "\(error)")
            #expect(error.message.contains(reason), "\(error)")
        }
    }
}
