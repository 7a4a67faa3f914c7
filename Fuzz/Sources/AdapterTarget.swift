import Foundation
import LorryModel
import LorryTensor

/// An adapter's folder, checked and loaded over the tests' smallest model. The input is the
/// configuration, a NUL, the weights' header, and perhaps another NUL and data, which are repeated.
struct AdapterTarget: FuzzTarget {
    private static let llama = "lorryTests/Fixtures/llama"
    private static let configurationName = "adapter_config.json"
    private static let weightsName = "adapter_model.safetensors"
    private static let maximumDataByteCount = 1 << 19

    private let model: DecoderModel
    private let folder: URL

    init() throws {
        folder = try makeScratchFolder()
        model = try DecoderModel(
            directory: Fixtures.folder.appending(path: "\(Self.llama)/base"), format: .f32,
            pool: WorkerPool(threadCount: 1))
    }

    func run(_ input: [UInt8]) throws {
        let parts = input.split(separator: 0, maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count > 1 else { return }
        let header = Array(parts[1])
        let data = try data(parts.count > 2 ? Array(parts[2]) : [], for: header)
        try Data(parts[0]).write(to: folder.appending(path: Self.configurationName))
        try Data(SafetensorsTarget.file(header: header, data: data))
            .write(to: folder.appending(path: Self.weightsName))
        _ = try AdapterCompiler.inspect(directory: folder, model: model, format: .f32)
        _ = try AdapterCompiler.compile(
            directory: folder, model: model, format: input.count.isMultiple(of: 2) ? .f32 : .bf16)
    }

    /// As many as the header says. Without any they are small numbers in each type of weights.
    private func data(_ given: [UInt8], for header: [UInt8]) throws -> [UInt8] {
        guard let tensors = try StrictJSON(parsing: header, maximumDepth: 4).objectValue else {
            return []
        }
        let ends = tensors.members.compactMap {
            $0.value.objectValue?["data_offsets"]?.arrayValue?.last?.integerValue
        }
        let count = min(max(ends.max() ?? 0, 0), Self.maximumDataByteCount)
        let pattern: [UInt8] = given.isEmpty ? [0x11, 0x3C, 0x22, 0x3C] : given
        return (0..<count).map { pattern[$0 % pattern.count] }
    }

    /// Each fixture without its data, but for a beginning where some are indices.
    static func seeds() throws -> [String: [UInt8]] {
        var seeds: [String: [UInt8]] = [:]
        let names = ["adapters", "unsupported"]
        for folder in try names.flatMap({ try Fixtures.children("\(llama)/\($0)") }) {
            let weights = folder.appending(path: weightsName)
            guard let file = try? Array(Data(contentsOf: weights)), file.count > 8 else { continue }
            let length = file.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self).littleEndian }
            let header = file[8..<8 + Int(length)]
            let hasIndices = String(decoding: header, as: UTF8.self).contains("\"I64\"")
            let configuration = try Data(contentsOf: folder.appending(path: configurationName))
            seeds[folder.lastPathComponent] =
                Array(configuration) + [0] + header
                + (hasIndices ? [0] + file[(8 + Int(length))...].prefix(1 << 12) : [])
        }
        return seeds
    }
}
