import Foundation
import LorryEngine
import LorryModel
import LorryTensor

/// An adapter folder that requests of a measurement use.
public struct BenchAdapter: Sendable {
    public let reference: AdapterReference
    public let cost: StepCost.Adapter
    public let rank: Int
    /// Names of the adapted modules.
    public let targets: [String]

    /// - Throws: `AdapterError` where the folder's adapter cannot run on the model.
    public init(directory: URL, model: DecoderModel) throws(AdapterError) {
        let description = try AdapterCompiler.inspect(
            directory: directory, configuration: model.configuration,
            format: model.format.operandFormat)
        let name = directory.lastPathComponent
        reference = AdapterReference(
            id: AdapterVersionID(name), name: name, byteCount: description.byteCount,
            traits: description.traits
        ) {
            try AdapterCompiler.compile(directory: directory, model: model)
        }
        cost = StepCost.Adapter(
            byteCount: description.byteCount, parameterCount: description.parameterCount)
        rank = description.rank
        targets = description.targets
    }

    /// The adapters in a folder's sub-folders, in the order of their names.
    ///
    /// - Parameter count: at most so many.
    /// - Throws: `BenchError` where the folder cannot be read, `AdapterError` of an adapter.
    public static func all(
        in directory: URL, model: DecoderModel, count: Int
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
            .map { try BenchAdapter(directory: $0, model: model) }
    }
}
