import ArgumentParser
import Foundation
import LorrySynth

/// `lorry synth`: checkpoints with random weights of real shapes, for benches and tests.
struct SynthCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "synth",
        abstract: "Write synthetic checkpoints and adapters.",
        discussion: "Weights are random, shapes and files those of real models.",
        subcommands: [Model.self, Adapters.self])

    struct Model: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Write a model folder with random weights.")
        @Option(help: "One of: \(ModelShape.presets.map(\.name).joined(separator: ", ")).")
        var shape: String
        @Option(help: "The folder to write; must not exist.", completion: .directory)
        var out: String
        @Option(help: "The same seed gives the same weights.")
        var seed: UInt64 = 0

        func run() async throws {
            let bar = ProgressBar(label: "writing \(shape)")
            try await SyntheticModel.write(
                shape: ModelShape.named(shape), to: URL(filePath: out), seed: seed
            ) { done, total in
                bar.update(Double(done) / Double(max(total, 1)))
            }
            bar.finish()
            print("wrote \(out)")
        }
    }

    struct Adapters: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Write PEFT adapters with random weights: adapter-0000, adapter-0001, …")
        @Option(help: "The model folder that they are for.", completion: .directory)
        var model: String
        @Option(help: "How many.")
        var count: Int
        @Option(help: "Ranks, separated by commas; adapters take them in turn.")
        var rank = "16"
        @Option(
            help: """
                PEFT methods, separated by commas; adapters take them in turn. Known are \
                \(SyntheticMethod.allCases.map(\.rawValue).joined(separator: ", ")).
                """)
        var method = SyntheticMethod.lora.rawValue
        @Option(help: "all, or names of linear layers separated by commas.")
        var targets = "all"
        @Option(help: "The folder to write them into.", completion: .directory)
        var out: String
        @Option(help: "The same seed gives the same weights.")
        var seed: UInt64 = 0

        func run() async throws {
            let ranks = rank.split(separator: ",").map { Int($0) }
            guard !ranks.isEmpty, ranks.allSatisfy({ $0 != nil }) else {
                throw ValidationError("--rank: '\(rank)' is not a list of whole numbers")
            }
            let methods = try method.split(separator: ",").map { name in
                guard let method = SyntheticMethod(rawValue: String(name)) else {
                    throw ValidationError("--method: '\(name)' is not known")
                }
                return method
            }
            guard !methods.isEmpty else { throw ValidationError("--method: none is given") }
            let bar = ProgressBar(label: "writing \(count) adapters")
            try await SyntheticAdapters.write(
                modelDirectory: URL(filePath: model), count: count,
                ranks: ranks.compactMap { $0 }, methods: methods,
                targets: targets.split(separator: ",").map(String.init), to: URL(filePath: out),
                seed: seed
            ) { done, total in
                bar.update(Double(done) / Double(max(total, 1)))
            }
            bar.finish()
            print("wrote \(count) adapters to \(out)")
        }
    }
}
