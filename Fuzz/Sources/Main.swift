import CFuzzer
import Foundation

/// What libFuzzer tries inputs on. Made once; an input that is refused throws, and one that breaks
/// a promise traps.
protocol FuzzTarget: Sendable {
    init() throws
    func run(_ input: [UInt8]) throws
    /// Inputs to begin with, made of the tests' fixtures, by names.
    static func seeds() throws -> [String: [UInt8]]
}

extension FuzzTarget {
    static func seeds() throws -> [String: [UInt8]] { [:] }
}

/// `lorry-fuzz`: libFuzzer, with its own arguments, on the target that `LORRY_FUZZ_TARGET` names.
/// With `LORRY_FUZZ_SEEDS` it writes the target's seeds to that folder instead.
@main enum Main {
    static let targets: [String: any FuzzTarget.Type] = [
        "adapter": AdapterTarget.self,
        "archive": ArchiveTarget.self,
        "http1": HTTP1Target.self,
        "http2": HTTP2Target.self,
        "multipart": MultipartTarget.self,
        "request": RequestTarget.self,
        "safetensors": SafetensorsTarget.self,
        "template": TemplateTarget.self,
        "tokenizer": TokenizerTarget.self,
    ]

    /// The target of this run. libFuzzer calls on one thread.
    nonisolated(unsafe) private static var target: (any FuzzTarget)?

    static func main() throws {
        let environment = ProcessInfo.processInfo.environment
        guard let type = targets[environment["LORRY_FUZZ_TARGET"] ?? ""] else {
            print("LORRY_FUZZ_TARGET is none of \(targets.keys.sorted().joined(separator: " "))")
            exit(64)
        }
        if let folder = environment["LORRY_FUZZ_SEEDS"] {
            for (name, bytes) in try type.seeds() {
                try Data(bytes).write(to: URL(filePath: folder).appending(path: name))
            }
            return
        }
        target = try type.init()
        var count = CommandLine.argc
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
        exit(
            LLVMFuzzerRunDriver(&count, &arguments) { bytes, count in
                // An error is a refusal, as it should be.
                try? Main.target?.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
                return 0
            })
    }
}

/// The tests' fixtures.
enum Fixtures {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "../../Tests").standardizedFileURL

    static func bytes(_ path: String) throws -> [UInt8] {
        try Array(Data(contentsOf: folder.appending(path: path)))
    }

    static func children(_ path: String) throws -> [URL] {
        try FileManager.default.contentsOfDirectory(
            at: folder.appending(path: path), includingPropertiesForKeys: nil)
    }
}

/// A folder of this run's, in the system's memory where `TMPDIR` says so.
func makeScratchFolder() throws -> URL {
    let folder = FileManager.default.temporaryDirectory.appending(
        path: "lorry-fuzz-\(ProcessInfo.processInfo.processIdentifier)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    return folder
}
