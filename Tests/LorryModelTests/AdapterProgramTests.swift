import Foundation
import LorryModel
import LorryTensor
import Testing

/// Programs against the same change folded into the base's weights.
@Suite struct AdapterProgramTests {
    private let workers = WorkerPool(threadCount: 2)
    private let tokens: [Int32] = [3, 17, 0, 31, 8, 8, 1, 30, 22, 5, 6, 7, 9, 11, 13, 15, 2, 4]
    /// Every bias there, so that a bias can be folded.
    private static var biased: [String: Any?] { ["attention_bias": true, "mlp_bias": true] }
    private static let sites: [LinearSite] = LinearSite.allCases

    private func model(_ tensors: CraftedTensors) throws -> DecoderModel {
        let folder = try TestFolder()
        try TinyModel.write(to: folder, tensors, Self.biased)
        return try DecoderModel(directory: folder.url, format: .f32, pool: workers)
    }

    private var base: CraftedTensors { TinyModel.tensors(biases: Set(TinyModel.modules)) }

    private func numbers(_ count: Int, seed: UInt32) -> [Float] {
        (0..<count).map { index in
            let bits = (seed &+ UInt32(index) &* 7919) &* 2_654_435_761
            return Float(bits >> 8) / Float(1 << 24) - 0.5
        }
    }

    private func check(
        _ build: (inout AdapterProgramBuilder) -> Void, _ fold: (inout CraftedTensors) -> Void,
        label: String
    ) throws {
        let plain = try model(base)
        var builder = AdapterProgramBuilder(configuration: plain.configuration)
        build(&builder)
        let program = try builder.build(method: "test", format: .f32, model: plain)
        var folded = base
        fold(&folded)
        let expected = try model(folded).testLogits(tokens, workers)
        let found = plain.testLogits(tokens, workers, program: program)
        let untouched = plain.testLogits(tokens, workers)
        let error = zip(found, expected).map { abs($0 - $1) }.max() ?? 1
        let change = zip(found, untouched).map { abs($0 - $1) }.max() ?? 0
        #expect(error < 1e-4, "\(label)")
        #expect(change > max(1e-4, 10 * error), "\(label): the program changed nothing")
    }

    @Test func lowRankDeltas() throws {
        for (index, site) in Self.sites.enumerated() {
            let name = "\(site.path(layer: 1)).weight"
            let (out, into) = TinyModel.dimensions(site.name)
            let rank = index + 1
            let down = numbers(rank * into, seed: 3)
            let up = numbers(out * rank, seed: 99)
            try check(
                {
                    $0.addLowRank(
                        at: .linear(layer: 1, site), rank: rank, down: .constant(down),
                        up: .constant(up),
                        scale: 0.75)
                },
                { tensors in
                    for row in 0..<out {
                        for column in 0..<into {
                            let product = (0..<rank).reduce(Float(0)) {
                                $0 + up[row * rank + $1] * down[$1 * into + column]
                            }
                            tensors.tensors[name]?.floats[row * into + column] += 0.75 * product
                        }
                    }
                }, label: "low rank at \(site)")
        }
    }

    /// Narrower factors change a delta by far less than the delta itself, and take less memory.
    @Test func everyFormatIsNearTheFactors() throws {
        let plain = try model(base)
        var builder = AdapterProgramBuilder(configuration: plain.configuration)
        for (index, site) in Self.sites.enumerated() {
            let (out, into) = TinyModel.dimensions(site.name)
            let rank = 3 + index
            builder.addLowRank(
                at: .linear(layer: index % 2, site), rank: rank,
                down: .constant(numbers(rank * into, seed: 7)),
                up: .constant(numbers(out * rank, seed: 70)), scale: 0.5)
        }
        let programs = try OperandFormat.allCases.map {
            try builder.build(method: "test", format: $0, model: plain)
        }
        for (format, program) in zip(OperandFormat.allCases, programs) {
            #expect(
                program.byteCount == builder.describe(method: "test", format: format).byteCount)
        }
        #expect(programs[1].byteCount < programs[0].byteCount)
        let untouched = plain.testLogits(tokens, workers)
        let exact = plain.testLogits(tokens, workers, program: programs[0])
        let change = zip(exact, untouched).map { abs($0 - $1) }.max() ?? 0
        for program in programs.dropFirst() {
            let found = plain.testLogits(tokens, workers, program: program)
            let error = zip(found, exact).map { abs($0 - $1) }.max() ?? 1
            #expect(error > 0 && error < 0.02 * change, "\(program.format)")
        }
    }

    /// y ← g ⊙ (W x + b) is a base with scaled rows and biases.
    @Test func outputScales() throws {
        for site in Self.sites {
            let path = site.path(layer: 0)
            let (out, into) = TinyModel.dimensions(site.name)
            let scale = numbers(out, seed: 41).map { 1 + $0 }
            try check(
                { $0.setOutputScale(at: .linear(layer: 0, site), vector: .constant(scale)) },
                { tensors in
                    for row in 0..<out {
                        tensors.tensors["\(path).bias"]?.floats[row] *= scale[row]
                        for column in 0..<into {
                            tensors.tensors["\(path).weight"]?.floats[row * into + column] *=
                                scale[row]
                        }
                    }
                }, label: "output scale at \(site)")
        }
    }

    /// W (l ⊙ x) is a base with scaled columns, in every layer of the group.
    @Test func inputScales() throws {
        for group in LinearGroup.allCases {
            let into = TinyModel.dimensions(group.sites[0].name).in
            let scale = numbers(into, seed: 17).map { 1 + $0 }
            try check(
                { $0.transformInput(layer: 0, group: group, [.scale(.constant(scale))]) },
                { tensors in
                    for site in group.sites {
                        let name = "\(site.path(layer: 0)).weight"
                        for index in 0..<(tensors.tensors[name]?.floats.count ?? 0) {
                            tensors.tensors[name]?.floats[index] *= scale[index % into]
                        }
                    }
                }, label: "input scale at \(group)")
        }
    }

    @Test func biases() throws {
        for site in Self.sites {
            let name = "\(site.path(layer: 1)).bias"
            let vector = numbers(TinyModel.dimensions(site.name).out, seed: 23)
            // A key's bias that is the same at all positions hardly changes an answer.
            guard site != .key else { continue }
            try check(
                { $0.addBias(at: .linear(layer: 1, site), vector: .constant(vector), scale: 0.5) },
                { tensors in
                    for index in vector.indices {
                        tensors.tensors[name]?.floats[index] += 0.5 * vector[index]
                    }
                }, label: "bias at \(site)")
            try check(
                { $0.replaceBias(at: .linear(layer: 1, site), vector: .constant(vector)) },
                { $0.tensors[name]?.floats = vector }, label: "replaced bias at \(site)")
        }
    }

    /// Rows of three programs and of the base in one batch: each as alone, bit for bit.
    @Test func segmentsKeepToTheirRows() throws {
        let plain = try model(base)
        var programs: [AdapterProgram?] = [nil]
        for (index, rank) in [1, 5, 16].enumerated() {
            var builder = AdapterProgramBuilder(configuration: plain.configuration)
            for site in Self.sites where site.rawValue % 3 != index {
                let (out, into) = TinyModel.dimensions(site.name)
                builder.addLowRank(
                    at: .linear(layer: index % 2, site), rank: rank,
                    down: .constant(numbers(rank * into, seed: UInt32(rank))),
                    up: .constant(numbers(out * rank, seed: 5)), scale: 1)
                builder.setOutputScale(
                    at: .linear(layer: index % 2, site),
                    vector: .constant(numbers(out, seed: 8).map { 1 + $0 }))
            }
            programs.append(try builder.build(method: "test", format: .f32, model: plain))
        }
        let alone = programs.map { plain.testLogits(tokens, workers, program: $0) }
        #expect(Set(alone).count == 4)
        let mixed = try lastLogits(plain, programs) { _ in true }
        for index in programs.indices {
            #expect(mixed[index] == Array(alone[index].suffix(TinyModel.vocabularySize)))
        }
    }

    /// A chunk that ends no prompt beside rows of the base that do: of the last layer only the base's
    /// are left, and nothing of what the adapter does to the whole batch may act on them.
    @Test func rowsWithoutLogitsLeaveNothingBehind() throws {
        let plain = try model(base)
        let alone = Array(plain.testLogits(tokens, workers).suffix(TinyModel.vocabularySize))
        var programs: [AdapterProgram] = []
        for site in [LinearSite.query, .value, .gate] {
            let module = BaseModule.linear(layer: 1, site)
            let (out, into) = TinyModel.dimensions(site.name)
            var scaling = AdapterProgramBuilder(configuration: plain.configuration)
            scaling.setOutputScale(
                at: module, vector: .constant(numbers(out, seed: 8).map { 1 + $0 }))
            scaling.addBias(at: module, vector: .constant(numbers(out, seed: 3)), scale: 1)
            var transforming = AdapterProgramBuilder(configuration: plain.configuration)
            transforming.transformInput(
                of: module, [.scale(.constant(numbers(into, seed: 9).map { 1 + $0 }))])
            transforming.addLowRank(
                at: module, rank: 4, down: .constant(numbers(4 * into, seed: 6)),
                up: .constant(numbers(out * 4, seed: 5)), scale: 1)
            for builder in [scaling, transforming] {
                programs.append(try builder.build(method: "test", format: .f32, model: plain))
            }
        }
        for program in programs {
            for places in [[0, 1], [1, 0], [0, 1, 0], [1, 0, 1]] {
                let found = try lastLogits(
                    plain, places.map { $0 == 0 ? nil : program }, wanted: { $0 == nil })
                #expect(found.count == places.count { $0 == 0 })
                for logits in found { #expect(logits == alone) }
            }
        }
    }

    /// Logits of the last token of `tokens` with each of the programs, in one batch, of those wanted.
    private func lastLogits(
        _ model: DecoderModel, _ programs: [AdapterProgram?],
        wanted: (AdapterProgram?) -> Bool
    ) throws -> [[Float]] {
        let layout = KVLayout(layerCount: 2, kvHeadCount: 2, headDim: 4, format: .f32)
        let forward = ForwardPass(
            model: model, kvLayout: layout, maximumRowCount: programs.count * tokens.count,
            pool: workers)
        let arena = AlignedBuffer<UInt8>(count: 2 * programs.count * layout.blockByteCount)
        var batch = ForwardBatch()
        for (index, program) in programs.enumerated() {
            let last = tokens.count - 1
            batch.append(
                tokens: tokens[...], startPosition: 0,
                blockTable: [Int32(2 * index), Int32(2 * index + 1)], program: program,
                logits: wanted(program) ? last..<last + 1 : 0..<0)
        }
        // No two with one program lie side by side.
        #expect(batch.segments.count == programs.count { $0 != nil })
        forward.run(batch, arena: UnsafeMutableRawPointer(arena.pointer))
        return forward.withLogits(of: batch.logitRows.indices) { logits in
            batch.logitRows.indices.map { Array(logits.row($0)) }
        }
    }
}
