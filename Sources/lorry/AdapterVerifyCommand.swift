import ArgumentParser
import Foundation
import LorryModel
import LorryTensor

extension AdaptersCommand {
    struct Verify: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say what an adapter's folder is for a base model, or what is wrong with it.",
            discussion: """
                Needs no server and registers nothing. Ends with 1 where something is wrong. The \
                memory that it prints is for bf16 weights; where the base is held as f32, the \
                adapter takes twice as much.
                """)
        @Argument(help: "A folder in PEFT's format.", completion: .directory) var folder: String
        @Option(help: "The base model's folder.", completion: .directory) var model: String

        func run() async throws {
            let configuration = try ModelConfiguration(
                directory: URL(fileURLWithPath: model, isDirectory: true))
            let report = AdapterCompiler.report(
                directory: URL(fileURLWithPath: folder, isDirectory: true),
                configuration: configuration, format: .bf16)
            guard let description = report.description else {
                print("\(folder) cannot be served:")
                for problem in report.problems { print("  \(problem)") }
                throw ExitCode.failure
            }
            print("\(folder) is good")
            print("method     \(description.method), rank \(description.rank)")
            for (index, place) in report.places.enumerated() {
                print((index == 0 ? "changes    " : "           ") + place)
            }
            printTraits(description.traits)
            print("parameters \(description.parameterCount)")
            print("memory     \(ByteCountText.text(description.byteCount)) as bf16")
            if let cost = report.cost, let base = report.baseCost { print(cost, base) }
        }

        private func printTraits(_ traits: AdapterTraits) {
            if let count = traits.virtualTokenCount {
                print("prompt     \(count) tokens of its own come first")
            }
            if let count = traits.vocabularySize { print("vocabulary \(count) tokens") }
            if let count = traits.taskCount { print("tasks      \(count), by task_id") }
            if let tokens = traits.invocationTokens {
                print("acts from  tokens \(tokens.map(String.init).joined(separator: " ")) on")
            }
        }

        private func print(_ cost: AdapterReport.Cost, _ base: AdapterReport.Cost) {
            func share(_ part: Int, _ whole: Int) -> String {
                String(format: "%.1f %% of the base's", 100 * Double(part) / Double(max(whole, 1)))
            }
            print(
                "per token  \(cost.operationCount) operations, "
                    + "\(share(cost.operationCount, base.operationCount)) \(base.operationCount)")
            print(
                "           reads \(ByteCountText.text(cost.readByteCount)), "
                    + "\(share(cost.readByteCount, base.readByteCount)) "
                    + ByteCountText.text(base.readByteCount))
        }

        private func print(_ line: String) { Swift.print(line) }
    }
}
