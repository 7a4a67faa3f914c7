import ArgumentParser
import Foundation
import LorryBench
import LorryTensor

/// `lorry bench`: measurements against what this machine can do at most.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure kernels, whole steps, and a server under load.",
        discussion: """
            `kernels` and `engine` first measure how fast this machine reads memory and computes, \
            then give every figure also as a share of that. Other programs that use the cores or \
            the memory make figures worse: compare within one run.
            """,
        subcommands: [
            BenchKernelsCommand.self, BenchEngineCommand.self, BenchLoadCommand.self,
            BenchQualityCommand.self, BenchSimulateCommand.self,
        ])

    /// The level that kernels run at.
    ///
    /// - Throws: `KernelLevelError` of `LORRY_KERNELS`, `ValidationError` of `--level`.
    static func level(named name: String?) throws -> KernelLevel {
        guard let name else { return try Kernels.selection.get() }
        guard let level = KernelLevel(rawValue: name) else {
            let names = KernelLevel.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--level: '\(name)' is no kernel level; levels are \(names)")
        }
        guard level.isSupported else {
            throw ValidationError("--level: \(name) cannot run on this machine")
        }
        return level
    }

    static func pool(threadCount: Int?, level: KernelLevel) throws -> WorkerPool {
        let count = threadCount ?? Machine.physicalCoreCount
        guard count > 0, count <= 1024 else {
            throw ValidationError("--threads: \(count) is not between 1 and 1024")
        }
        return WorkerPool(threadCount: count, level: level)
    }

    /// Measures the machine's limits and prints them.
    static func measureLimits(_ pool: WorkerPool) -> MachineLimits {
        let limits = MachineLimits.measure(pool: pool)
        print("\(Machine.processorName), \(pool.threadCount) threads, level \(pool.level.rawValue)")
        for line in LimitsReport(limits).table.lines { print(line) }
        print("")
        return limits
    }

    static func check<Number: Comparable>(
        _ flag: String, _ value: Number?, _ range: ClosedRange<Number>
    ) throws {
        guard let value, !range.contains(value) else { return }
        throw ValidationError(
            "\(flag): \(value) is not between \(range.lowerBound) and \(range.upperBound)")
    }

    /// Tells before anything is measured that its figures could not be written.
    ///
    /// - Parameter flag: what named the file.
    static func checkWritable(_ path: String?, as flag: String) throws {
        guard let path else { return }
        let files = FileManager.default
        let folder = URL(filePath: path).deletingLastPathComponent().path
        var isFolder: ObjCBool = false
        let isThere = files.fileExists(atPath: path, isDirectory: &isFolder)
        guard
            isThere
                ? !isFolder.boolValue && files.isWritableFile(atPath: path)
                : files.isWritableFile(atPath: folder)
        else { throw ValidationError("\(flag) \(path): cannot be written") }
    }

    static func write(_ report: some Encodable, to path: String?) throws {
        guard let path else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        do {
            try encoder.encode(report).write(to: URL(filePath: path))
        } catch {
            throw StartError("--json \(path): cannot be written")
        }
    }
}
