import Foundation
import LorryModel

/// The shape of the base model that a state directory's adapters were checked against, kept beside
/// them.
///
/// Without it, another model on the same directory would offer adapters that fail when they are
/// used.
struct BaseMark {
    private let file: URL
    private let shape: String

    init(stateDirectory: String, configuration: ModelConfiguration) {
        file = URL(filePath: stateDirectory).appending(path: "base-model")
        shape =
            "\(configuration.architecture.rawValue), \(configuration.layerCount) layers, "
            + "hidden \(configuration.hiddenSize), intermediate \(configuration.intermediateSize), "
            + "\(configuration.headCount) heads, \(configuration.kvHeadCount) kv heads, "
            + "head width \(configuration.headDim), vocabulary \(configuration.vocabularySize)"
    }

    /// - Parameter holdsAdapters: whether the directory has adapters at all; an empty one takes
    ///   any model.
    /// - Throws: `StartError` naming both shapes where the adapters were made for another one.
    func check(holdsAdapters: Bool) throws {
        let old = (try? Data(contentsOf: file)).map { String(decoding: $0, as: UTF8.self) }
        if old == shape { return }
        if let old, holdsAdapters {
            throw StartError(
                "--state-dir: \(file.deletingLastPathComponent().path) holds adapters for another "
                    + "base model (\(old)); this one is \(shape). Give it a state directory of its own"
            )
        }
        do {
            try Data(shape.utf8).write(to: file, options: .atomic)
        } catch {
            throw StartError(
                "--state-dir: cannot write \(file.path): \(error.localizedDescription)")
        }
    }
}
