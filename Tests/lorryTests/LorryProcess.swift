import Foundation
import Testing

/// A folder of its own for a test, gone with it.
final class ScratchFolder: Sendable {
    let url: URL
    var path: String { url.path }

    init() throws {
        url = FileManager.default.temporaryDirectory
            .appending(path: "lorry-\(UUID().uuidString)", directoryHint: .isDirectory)
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func file(_ name: String, _ text: String) throws -> String {
        let file = url.appending(path: name)
        try Data(text.utf8).write(to: file)
        return file.path
    }
}

/// Files that come with the package.
enum PackageFiles {
    static let fixtures = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "Fixtures")
    static let examples = fixtures.deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "adapters")
    static let tales = examples.appending(path: "tales-5m")
    static let talesAdapters = examples.appending(path: "tales")
}

struct TestFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// How a process ended.
enum Ending: Equatable, Sendable {
    case exit(Int32)
    case signal(Int32)
}

/// The built program, run as a process of its own.
final class LorryProcess: Sendable {
    private let process: Process
    private let ended: Task<Ending, Never>
    private let output: URL
    private let errors: URL
    private let folder: ScratchFolder

    var standardOutput: String { Self.text(output) }
    var standardError: String { Self.text(errors) }
    var isRunning: Bool { process.isRunning }

    private static func text(_ file: URL) -> String {
        (try? Data(contentsOf: file)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    /// The program lies beside the test bundle, since the package builds both into one folder.
    static func program() throws -> URL {
        let folder = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent()
        let package = PackageFiles.examples.deletingLastPathComponent()
        let candidates = [
            folder.appending(path: "lorry"), package.appending(path: ".build/release/lorry"),
            package.appending(path: ".build/debug/lorry"),
        ]
        let files = FileManager.default
        guard let found = candidates.first(where: { files.isExecutableFile(atPath: $0.path) })
        else { throw TestFailure("no built program: looked for \(candidates.map(\.path))") }
        return found
    }

    /// - Parameters:
    ///   - environment: added to the test's own, without its `LORRY_` variables.
    ///   - launcher: a program that becomes Lorry, with its arguments.
    init(
        _ arguments: [String], environment: [String: String] = [:], launcher: [String] = []
    ) throws {
        folder = try ScratchFolder()
        output = folder.url.appending(path: "out")
        errors = folder.url.appending(path: "err")
        for file in [output, errors] { try Data().write(to: file) }
        process = Process()
        let program = try Self.program()
        process.executableURL = launcher.first.map { URL(filePath: $0) } ?? program
        process.arguments =
            launcher.isEmpty ? arguments : launcher.dropFirst() + [program.path] + arguments
        process.environment = ProcessInfo.processInfo.environment
            .filter { !$0.key.hasPrefix("LORRY_") }
            .merging(environment) { $1 }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try FileHandle(forWritingTo: output)
        process.standardError = try FileHandle(forWritingTo: errors)
        let (endings, end) = AsyncStream<Ending>.makeStream()
        process.terminationHandler = {
            let status = $0.terminationStatus
            end.yield($0.terminationReason == .exit ? .exit(status) : .signal(status))
            end.finish()
        }
        ended = Task { await endings.first { _ in true } ?? .exit(-1) }
        try process.run()
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    /// The system's number of the process.
    var identifier: Int32 { process.processIdentifier }

    func send(_ signal: Int32) { kill(process.processIdentifier, signal) }

    func wait() async -> Ending { await ended.value }

    /// Runs a command that ends by itself.
    static func result(
        _ arguments: [String], environment: [String: String] = [:]
    ) async throws -> (ending: Ending, output: String, errors: String) {
        let process = try LorryProcess(arguments, environment: environment)
        let ending = await process.wait()
        return (ending, process.standardOutput, process.standardError)
    }
}

/// A `lorry serve` on a free loopback port.
struct LorryServer: Sendable {
    let process: LorryProcess
    let client: Client

    /// What a test's server is given; a state folder of its own where none is named.
    struct Options: Sendable {
        /// Nil: what the program serves when it is told nothing.
        var model: URL? = PackageFiles.tales
        var modelName: String?
        var adapters: URL? = PackageFiles.talesAdapters
        var state: ScratchFolder?
        var further: [String] = []
        var environment: [String: String] = [:]
        /// See `LorryProcess.init`.
        var launcher: [String] = []
    }

    /// Starts a server and waits for its line on standard output.
    /// - Throws: `TestFailure` with its log where it ends instead.
    static func start(_ options: Options, state: ScratchFolder) async throws -> LorryServer {
        var arguments = [
            "serve", "--weights", "f32", "--port", "0", "--state-dir", state.path,
            "--memory-budget", "256MiB",
        ]
        if let model = options.model { arguments += ["--model", model.path] }
        if let name = options.modelName { arguments += ["--model-name", name] }
        if let adapters = options.adapters { arguments += ["--adapters", adapters.path] }
        let process = try LorryProcess(
            arguments + options.further, environment: options.environment,
            launcher: options.launcher)
        while true {
            let line = process.standardOutput
            if line.hasSuffix("\n") {
                guard
                    let port = line.split(separator: ":").last.flatMap({
                        Int($0.trimmingCharacters(in: .whitespacesAndNewlines))
                    })
                else { throw TestFailure("no port in the ready line '\(line)'") }
                return LorryServer(process: process, client: Client(port: port))
            }
            guard process.isRunning else {
                let ending = await process.wait()
                throw TestFailure("the server ended with \(ending): \(process.standardError)")
            }
            try await Task.sleep(for: .milliseconds(3))
        }
    }

    /// A server for the length of `body`; it has to end with 0 after SIGTERM.
    static func run(
        _ options: Options = Options(), _ body: (LorryServer) async throws -> Void
    ) async throws {
        let state = try options.state ?? ScratchFolder()
        let server = try await start(options, state: state)
        do {
            try await body(server)
        } catch {
            await server.kill()
            throw error
        }
        server.process.send(SIGTERM)
        let ending = await server.process.wait()
        #expect(ending == .exit(0), "log: \(server.process.standardError)")
    }

    /// Ends the process at once, as a power failure would.
    func kill() async {
        process.send(SIGKILL)
        _ = await process.wait()
    }
}
