import CZlib
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

typealias NamedFile = (name: String, bytes: [UInt8])

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

/// Builds tar archives byte by byte, valid or not.
struct TarBuilder {
    private(set) var bytes: [UInt8] = []
    /// Where each entry's header starts.
    private(set) var offsets: [Int] = []

    init(_ files: [NamedFile] = [], prefix: String = "") {
        for file in files { add(prefix + file.name, file.bytes) }
    }

    mutating func add(
        _ path: String, _ content: [UInt8] = [], type: Character = "0", link: String = "",
        claimedByteCount: Int? = nil, change: (inout [UInt8]) -> Void = { _ in }
    ) {
        offsets.append(bytes.count)
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, at offset: Int) {
            for (index, byte) in text.utf8.enumerated() { header[offset + index] = byte }
        }
        func octal(_ value: Int, _ width: Int) -> String {
            let digits = String(value, radix: 8)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        put(String(path.prefix(100)), at: 0)
        put("0000644\0", at: 100)
        put("0000000\0", at: 108)
        put("0000000\0", at: 116)
        put(octal(claimedByteCount ?? content.count, 11) + "\0", at: 124)
        put("00000000000\0", at: 136)
        put(String(type), at: 156)
        put(link, at: 157)
        put("ustar\u{0}00", at: 257)
        change(&header)
        put("        ", at: 148)
        let sum = header.reduce(0) { $0 + Int($1) }
        put(octal(sum, 6) + "\0 ", at: 148)
        bytes += header + content
        bytes += [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
    }

    mutating func addPax(_ records: [(String, String)], type: Character = "x") {
        add("PaxHeader", Self.pax(records), type: type)
    }

    static func pax(_ records: [(String, String)]) -> [UInt8] {
        records.flatMap { key, value -> [UInt8] in
            let rest = " \(key)=\(value)\n"
            var length = rest.utf8.count + 1
            while "\(length)".utf8.count + rest.utf8.count != length { length += 1 }
            return Array("\(length)\(rest)".utf8)
        }
    }

    /// With the end marker.
    var archive: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }
}

func gzip(_ bytes: [UInt8]) throws -> [UInt8] {
    var stream = z_stream()
    try #require(
        deflateInit2_(
            &stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
            Int32(MemoryLayout<z_stream>.size)) == Z_OK)
    defer { deflateEnd(&stream) }
    var input = bytes
    let bound = Int(deflateBound(&stream, UInt(bytes.count)))
    return input.withUnsafeMutableBufferPointer { source in
        [UInt8](unsafeUninitializedCapacity: bound) { target, count in
            stream.next_in = source.baseAddress
            stream.avail_in = UInt32(source.count)
            stream.next_out = target.baseAddress
            stream.avail_out = UInt32(target.count)
            deflate(&stream, Z_FINISH)
            count = target.count - Int(stream.avail_out)
        }
    }
}
