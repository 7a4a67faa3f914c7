import ArgumentParser
import CNghttp2
import COpenBLAS
import CPCRE2
import CZlib
import Foundation
import LorryConfiguration
import LorryModel
import LorryTensor
import LorryText

/// `lorry doctor`: what this machine offers, and what is wrong with a model or adapter folder.
struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Tell what this machine offers and what is wrong with a folder.",
        discussion: """
            Prints the processor, the kernels that it can run and those that are used, memory, \
            limits and the versions of linked libraries. With --model it checks that the model \
            can be served; with --adapter, that the adapter can be served on that model. Exits \
            with 1 where something is wrong.
            """)

    @Option(help: "A model folder in Hugging Face format.", completion: .directory)
    var model: String?

    @Option(
        name: .customLong("adapter"), help: "A PEFT adapter folder; may be given several times.",
        completion: .directory)
    var adapters: [String] = []

    private static var example: URL? {
        BundledExample.locate(executable: URL(filePath: "/proc/self/exe"))?.model
    }

    func validate() throws {
        guard adapters.isEmpty || model != nil || Self.example != nil else {
            throw ValidationError("--adapter needs --model: an adapter belongs to a base model")
        }
    }

    func run() async throws {
        var faults = 0
        printMachine()
        faults += printKernels()
        printLibraries()
        if model != nil || !adapters.isEmpty { faults += try checkFolders() }
        let count = faults == 1 ? "1 fault" : "\(faults) faults"
        print(faults == 0 ? "\nNothing is wrong." : "\nFound \(count).")
        if faults > 0 { throw ExitCode.failure }
    }

    // MARK: - Sections

    private func printMachine() {
        section("Machine")
        row("processor", Machine.processorName)
        row("cores", "\(Machine.physicalCoreCount) physical")
        let memory =
            "\(format(Machine.availableByteCount)) of \(format(Machine.totalByteCount)) free"
        row("memory", memory)
        if let limit = Machine.openFileLimit { row("open files", "at most \(limit)") }
    }

    private func printKernels() -> Int {
        section("Kernels")
        let features = ProcessorFeature.all
        row("features", features.filter(\.isPresent).map(\.name).joined(separator: " "))
        row("lacking", features.filter { !$0.isPresent }.map(\.name).joined(separator: " "))
        row("can run", KernelLevel.supported.map(\.rawValue).joined(separator: ", "))
        let others = KernelLevel.allCases.filter { !$0.isSupported }.map(\.rawValue)
        if !others.isEmpty { row("cannot run", others.joined(separator: ", ")) }
        switch Kernels.selection {
        case .success(let level):
            let isBest = level == KernelLevel.supported.last
            row("used", level.rawValue + (isBest ? "" : ", chosen by \(Kernels.variable)"))
            return 0
        case .failure(let error):
            row("fault", "\(error)")
            return 1
        }
    }

    private func printLibraries() {
        section("Libraries")
        row("OpenBLAS", String(cString: openblas_get_config()))
        row("nghttp2", nghttp2_version(0).map { String(cString: $0.pointee.version_str) } ?? "?")
        row("zlib", String(cString: zlibVersion()))
        row("PCRE2", pcre2Version())
    }

    private func pcre2Version() -> String {
        var buffer = [UInt8](repeating: 0, count: 64)
        let count = buffer.withUnsafeMutableBytes {
            pcre2_config_8(UInt32(PCRE2_CONFIG_VERSION), $0.baseAddress)
        }
        return String(decoding: buffer.prefix(max(0, Int(count) - 1)), as: UTF8.self)
    }

    private func checkFolders() throws -> Int {
        guard let directory = model.map({ URL(filePath: $0) }) ?? Self.example
        else { return 1 }
        section("Model \(directory.path)")
        let loaded: DecoderModel
        do {
            let pool = WorkerPool(threadCount: Machine.physicalCoreCount)
            loaded = try DecoderModel(directory: directory, format: nil, pool: pool)
            row("architecture", loaded.configuration.architecture.rawValue)
            row("layers", "\(loaded.configuration.layerCount)")
            row("context", "\(loaded.contextLength) tokens")
            row("weights", "\(format(loaded.byteCount)) as \(loaded.format.rawValue)")
        } catch {
            row("fault", "\(error)")
            return 1
        }
        var faults = 0
        do {
            let tokenizer = try Tokenizer(directory: directory)
            row("tokenizer", "\(tokenizer.vocabularySize) tokens")
            row("chat template", tokenizer.chatTemplate == nil ? "none" : "there")
        } catch {
            row("fault", "\(error)")
            faults += 1
        }
        for path in adapters { faults += checkAdapter(path, loaded) }
        return faults
    }

    private func checkAdapter(_ path: String, _ model: DecoderModel) -> Int {
        section("Adapter \(path)")
        do {
            let description = try AdapterCompiler.inspect(
                directory: URL(filePath: path), configuration: model.configuration,
                format: model.format.operandFormat)
            row("method", "\(description.method), rank \(description.rank)")
            row("targets", description.targets.joined(separator: ", "))
            row("resident", format(description.byteCount))
            return 0
        } catch {
            row("fault", error.message)
            return 1
        }
    }

    // MARK: - Output

    private func section(_ title: String) { print("\n\(title)") }

    private func row(_ name: String, _ value: String) {
        print("  " + name.padding(toLength: 16, withPad: " ", startingAt: 0) + value)
    }

    private func format(_ byteCount: Int) -> String {
        let mebibytes = Double(byteCount) / Double(1 << 20)
        return mebibytes < 1024
            ? String(format: "%.1f MiB", mebibytes) : String(format: "%.1f GiB", mebibytes / 1024)
    }
}
