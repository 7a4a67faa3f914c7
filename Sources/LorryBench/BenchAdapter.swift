import Foundation
import LorryEngine
import LorryModel
import LorryTensor

/// An adapter folder that requests of a measurement use.
public struct BenchAdapter: Sendable {
    public let reference: AdapterReference
    public let cost: StepWork.Adapter
    public let rank: Int
    /// Names of the adapted modules.
    public let targets: [String]

    /// - Throws: `AdapterError` where the folder's adapter cannot run on the model.
    public init(
        directory: URL, model: DecoderModel, format: OperandFormat
    ) throws(AdapterError) {
        let description = try AdapterCompiler.inspect(
            directory: directory, configuration: model.configuration,
            format: format)
        let name = directory.lastPathComponent
        reference = AdapterReference(
            id: AdapterVersionID(name), name: name, byteCount: description.byteCount,
            traits: description.traits
        ) {
            try AdapterCompiler.compile(directory: directory, model: model, format: format)
        }
        cost = StepWork.Adapter(
            byteCount: description.byteCount, parameterCount: description.parameterCount)
        rank = description.rank
        targets = description.targets
    }

    /// The adapters in a folder's sub-folders, in the order of their names.
    ///
    /// - Parameters:
    ///   - format: how they are held.
    ///   - count: at most so many.
    /// - Throws: `BenchError` where the folder cannot be read, `AdapterError` of an adapter.
    public static func all(
        in directory: URL, model: DecoderModel, format: OperandFormat, count: Int
    ) throws -> [BenchAdapter] {
        let folders: [URL]
        do {
            folders = try FileManager.default.contentsOfDirectory(
                at: directory, includingPropertiesForKeys: nil)
        } catch {
            throw BenchError("--adapters \(directory.path): cannot be read")
        }
        return
            try folders
            .filter {
                FileManager.default.fileExists(
                    atPath: $0.appending(path: "adapter_config.json").path)
            }
            .sorted { $0.lastPathComponent < $1.lastPathComponent }
            .prefix(count)
            .map { try BenchAdapter(directory: $0, model: model, format: format) }
    }
}
