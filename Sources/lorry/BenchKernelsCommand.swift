import ArgumentParser
import Foundation
import LorryBench
import LorryTensor

/// `lorry bench kernels`: each kernel against this machine's limits.
struct BenchKernelsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kernels",
        abstract: "Measure each kernel on shapes of real models.",
        discussion: """
            Weights, adapters and KV blocks rotate over more memory than the caches hold, as they \
            do in a step. The limit is the time in which this machine reads the operands or \
            computes, whichever is longer.
            """)

    @Option(help: "Kernel level; the process's own unless given.")
    var level: String?
    @Option(help: "Compute threads; the machine's physical cores unless given.")
    var threads: Int?
    @Option(help: "Only kernels whose name has one of these parts, separated by commas.")
    var only: String?
    @Option(help: "Writes every figure to this file.", completion: .file())
    var json: String?

    func validate() throws { try BenchCommand.checkWritable(json, as: "--json") }

    func run() async throws {
        let pool = try BenchCommand.pool(
            threadCount: threads, level: BenchCommand.level(named: level))
        let limits = BenchCommand.measureLimits(pool)
        let plan = KernelBench.Plan(
            coldByteCount: Machine.uncachedByteCount,
            names: only?.split(separator: ",").map(String.init) ?? [])
        print(Self.line("kernel", "shape", "rows", "time", "reached", "of limit"))
        let bench = KernelBench(plan: plan, limits: limits, pool: pool) { Self.show($0) }
        try bench.run()
        let report = KernelReport(limits: limits, pool: pool, kernels: bench.results)
        try BenchCommand.write(report, to: json)
    }

    private static func show(_ result: KernelResult) {
        let reached =
            switch result.boundBy {
            case .reading: Figures.significant(result.bytes / result.seconds / 1e9) + " GB/s"
            case .computing:
                Figures.significant(result.operations / result.seconds / 1e9) + " Gop/s"
            }
        print(
            line(
                result.name, result.shape, "\(result.rows)", Figures.duration(result.seconds),
                reached, Figures.percent(result.shareOfLimit)))
    }

    /// Columns of a fixed width, since lines are shown as they are measured.
    private static func line(
        _ name: String, _ shape: String, _ rows: String, _ time: String, _ reached: String,
        _ share: String
    ) -> String {
        func left(_ text: String, _ width: Int) -> String {
            text + String(repeating: " ", count: max(0, width - text.count))
        }
        func right(_ text: String, _ width: Int) -> String {
            String(repeating: " ", count: max(0, width - text.count)) + text
        }
        return left(name, 23) + left(shape, 32) + right(rows, 6) + right(time, 10)
            + right(reached, 13) + right(share, 10)
    }
}
