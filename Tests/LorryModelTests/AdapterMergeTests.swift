import Foundation
import LorryModel
import LorryTensor
import Testing

/// Merges of two adapters of the llama fixture against what peft makes of them (see `generate.py`).
@Suite struct AdapterMergeTests {
    private struct Cases: Decodable {
        struct Case: Decodable {
            let combinationType: String
            let adapters: [String]
            let weights: [Double]
            let density: Double?
            let majoritySignMethod: String?
            let svdRank: Int?
            let seed: Int?
        }
        let cases: [String: Case]
    }

    private static let fixtures = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "lorryTests/Fixtures")

    private func options(_ wanted: Cases.Case) throws -> MergeOptions {
        var options = MergeOptions()
        options.combination = try #require(.init(rawValue: wanted.combinationType))
        options.density = wanted.density
        options.majoritySign = wanted.majoritySignMethod == "frequency" ? .frequency : .total
        options.svdRank = wanted.svdRank
        options.seed = wanted.seed ?? 0
        return options
    }

    private func inputs(_ names: [String], _ weights: [Double]) -> [MergeInput] {
        zip(names, weights).map {
            MergeInput(
                name: $0,
                directory: Self.fixtures.appending(path: "llama/adapters/\($0)"), checksums: nil,
                weight: $1)
        }
    }

    private func merge(
        _ inputs: [MergeInput], _ options: MergeOptions, into folder: TestFolder
    ) throws -> SafetensorsFile {
        var merge = try AdapterMerge(inputs, options: options, configuration: try configuration)
        try folder.write(try merge.configurationFile(), "adapter_config.json")
        var weights = try merge.weightsHeader()
        while let bytes = try merge.next() { weights.append(contentsOf: bytes) }
        try folder.write(weights, "adapter_model.safetensors")
        return try SafetensorsFile(path: folder.path("adapter_model.safetensors"))
    }

    private var configuration: ModelConfiguration {
        get throws {
            try ModelConfiguration(directory: Self.fixtures.appending(path: "llama/base"))
        }
    }

    private func floats(_ file: SafetensorsFile, _ name: String) throws -> [Float] {
        let tensor = try #require(file.tensors[name], "\(name)")
        #expect(tensor.dtype.rawValue == "F32")
        return tensor.bytes.bytes.withMemoryRebound(to: Float.self, Array.init)
    }

    private func product(_ up: [Float], _ down: [Float], rank: Int) -> [Float] {
        let (rows, columns) = (up.count / rank, down.count / rank)
        var result = [Float](repeating: 0, count: rows * columns)
        for row in 0..<rows {
            for inner in 0..<rank {
                for column in 0..<columns {
                    result[row * columns + column] +=
                        up[row * rank + inner] * down[inner * columns + column]
                }
            }
        }
        return result
    }

    @Test func everyCombinationIsThatOfPeft() throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let folder = Self.fixtures.appending(path: "merges")
        let cases = try decoder.decode(
            Cases.self, from: Data(contentsOf: folder.appending(path: "cases.json"))
        ).cases
        let expected = try SafetensorsFile(path: folder.appending(path: "merged.safetensors").path)
        #expect(cases.count == 17)
        for (name, wanted) in cases {
            let output = try TestFolder()
            let found = try merge(
                inputs(wanted.adapters, wanted.weights), try options(wanted), into: output)
            let names = expected.tensors.keys.filter {
                $0.hasPrefix("\(name)|") && $0.hasSuffix("lora_A.weight")
            }
            #expect(names.count >= 2, "\(name)")
            for key in names {
                let down = String(key.dropFirst(name.count + 1))
                let up = down.replacingOccurrences(of: "lora_A", with: "lora_B")
                let rank = try #require(found.tensors[down]).shape[0]
                #expect(found.tensors[down]?.shape == expected.tensors[key]?.shape)
                let pairs = [
                    (try floats(found, down), try floats(expected, key)),
                    (try floats(found, up), try floats(expected, "\(name)|\(up)")),
                ]
                let products = (
                    product(pairs[1].0, pairs[0].0, rank: rank),
                    product(pairs[1].1, pairs[0].1, rank: rank)
                )
                // Singular vectors may have another sign.
                let compared =
                    wanted.combinationType.contains("svd") && wanted.adapters.count > 1
                    ? [products] : pairs + [products]
                for (mine, theirs) in compared {
                    let error = zip(mine, theirs).map { abs($0 - $1) }.max() ?? 1
                    #expect(error < 1e-5, "\(name) \(down)")
                    #expect(theirs.contains { abs($0) > 1e-3 }, "\(name) \(down)")
                }
            }
            let description = try AdapterCompiler.inspect(
                directory: output.url, configuration: try configuration, format: .f32)
            #expect(description.method == "lora", "\(name)")
        }
    }

    /// A rank that only some modules have, and modules that only some layers have.
    @Test func ranksAndTargetsOfModulesAreKept() throws {
        let output = try TestFolder()
        var options = MergeOptions()
        options.combination = .linear
        let file = try merge(inputs(["lora_patterns"], [0.5]), options, into: output)
        let key = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
        #expect(file.tensors[key]?.shape == [2, 160])
        _ = try AdapterCompiler.inspect(
            directory: output.url, configuration: try configuration, format: .f32)
        let mixed = try TestFolder()
        options.combination = .cat
        _ = try merge(inputs(["lora_layers", "lora_qv"], [0.5, 1]), options, into: mixed)
        let description = try AdapterCompiler.inspect(
            directory: mixed.url, configuration: try configuration, format: .f32)
        #expect(description.targets == ["o_proj", "q_proj", "up_proj", "v_proj"])
    }

    /// The sum of factors' small decomposition against that of the whole matrix.
    @Test func aClampCutsOff() throws {
        var options = MergeOptions()
        options.svdRank = 4
        options.svdClamp = 0.9
        let output = try TestFolder()
        let file = try merge(inputs(["lora_qv", "rslora"], [1, 1]), options, into: output)
        let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
        let down = try floats(file, name + "A.weight")
        let up = try floats(file, name + "B.weight")
        let largest = (down + up).map(abs).max() ?? 0
        #expect((down + up).count(where: { abs($0) == largest }) > (down + up).count / 20)
    }

    @Test func whatCannotBeMergedIsRefusedByName() throws {
        var options = MergeOptions()
        func message(_ names: [String]) -> String {
            do {
                _ = try AdapterMerge(
                    inputs(names, names.map { _ in 1 }), options: options,
                    configuration: try configuration)
                return ""
            } catch {
                return "\(error)"
            }
        }
        #expect(message([]).contains("nothing to merge"))
        #expect(message(["lora_bias", "lora_qv"]).hasPrefix("lora_bias: cannot be merged"))
        options.combination = .linear
        #expect(message(["lora_all", "lora_qv"]).contains("lora_all has 16, lora_qv has 8"))
        options.combination = .ties
        #expect(message(["rslora", "lora_qv"]).contains("density is needed by ties"))
        options.combination = .dareTies
        options.density = 0
        #expect(message(["rslora", "lora_qv"]).contains("density must be above 0"))
        options.combination = .svd
        options.svdRank = 33
        #expect(message(["rslora", "lora_qv"]).contains("k_proj has, 32"))
    }
}
