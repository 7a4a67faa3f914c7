import CraftedArchives
import Foundation
import Logging
import LorryModel
import LorryRegistry
import Synchronization
import Testing

/// A folder of its own for a test, gone with it.
final class ScratchFolder: Sendable {
    let url: URL
    var path: String { url.path }

    init() throws {
        url = FileManager.default.temporaryDirectory
            .appendingPathComponent("lorry-registry-\(UUID().uuidString)", isDirectory: true)
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func sub(_ name: String) -> URL { url.appendingPathComponent(name, isDirectory: true) }
}

/// Tells tasks that they may end.
final class Flag: Sendable {
    private let state = Mutex(false)
    var isSet: Bool { state.withLock { $0 } }
    func set() { state.withLock { $0 = true } }
}

/// A small adapter whose weights say `text`; another text is another version.
func adapterFiles(_ text: String = "one") -> [NamedFile] {
    [
        ("adapter_config.json", Array(#"{"peft_type": "LORA", "r": 8}"#.utf8)),
        ("adapter_model.safetensors", Array("weights \(text)".utf8)),
    ]
}

/// Stands in for the model's check: wants weights that begin with "weights".
let fakeInspection: AdapterInspection = { folder in
    let weights = try Data(contentsOf: folder.appendingPathComponent("adapter_model.safetensors"))
    guard weights.starts(with: Array("weights".utf8)) else {
        throw RegistryError(.invalid, "adapter_model.safetensors: no such weights")
    }
    return AdapterDescription(
        method: "LORA", rank: 8, targets: ["q_proj", "v_proj"], byteCount: weights.count * 2,
        parameterCount: weights.count)
}

func openRegistry(
    _ directory: URL, files: FileLayer = FileLayer(),
    configure: (inout RegistryConfiguration) -> Void = { _ in }
) throws -> AdapterRegistry {
    var configuration = RegistryConfiguration()
    configure(&configuration)
    var log = Logger(label: "test")
    log.logLevel = .critical
    return try AdapterRegistry(
        stateDirectory: directory, configuration: configuration, log: log, files: files,
        inspect: fakeInspection)
}

extension AdapterRegistry {
    @discardableResult
    func add(
        _ name: String, _ files: [NamedFile] = adapterFiles(),
        tenant: String = AdapterKey.sharedTenant, expecting: Precondition = .none
    ) async throws -> AddOutcome {
        let upload = try makeUpload()
        do {
            for file in files {
                try await upload.beginFile(file.name)
                try await upload.writeFile(file.bytes)
                try await upload.endFile()
            }
        } catch {
            await upload.discard()
            throw error
        }
        return try await add(
            name: name, tenant: tenant, from: upload, expecting: expecting, actor: "tester")
    }

    /// Sends an archive in pieces and registers it.
    @discardableResult
    func addArchive(
        _ name: String, _ archive: [UInt8], pieceByteCount: Int = 1000
    ) async throws -> AddOutcome {
        let upload = try makeUpload()
        do {
            for start in stride(from: 0, to: archive.count, by: pieceByteCount) {
                try await upload.writeArchive(
                    Array(archive[start..<min(archive.count, start + pieceByteCount)]))
            }
        } catch {
            await upload.discard()
            throw error
        }
        return try await add(name: name, from: upload, actor: "tester")
    }

    func weights(_ reference: String, tenant: String = AdapterKey.sharedTenant) throws -> String {
        let lease = try acquire(reference, tenant: tenant)
        return try String(
            contentsOf: lease.directory.appendingPathComponent("adapter_model.safetensors"),
            encoding: .utf8)
    }
}

/// Every path below a folder, sorted, with folders ending in a slash.
func tree(_ folder: URL) -> [String] {
    guard let walk = FileManager.default.enumerator(atPath: folder.path) else { return [] }
    return walk.compactMap { $0 as? String }.sorted()
}

/// The version folders in a state directory's store.
func storedVersions(_ state: URL) -> Set<String> {
    Set(
        tree(state.appendingPathComponent("store")).filter { $0.split(separator: "/").count == 2 }
            .map { String($0.suffix(64)) })
}

func stagedNames(_ state: URL) -> [String] { tree(state.appendingPathComponent("staging")) }

func kind(_ body: () async throws -> Void) async -> RegistryError.Kind? {
    await error(body)?.kind
}

func error(_ body: () async throws -> Void) async -> RegistryError? {
    do {
        try await body()
        return nil
    } catch {
        return error as? RegistryError
    }
}
