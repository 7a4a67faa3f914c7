import Foundation

/// Finds the example model and adapters that come with Lorry.
public enum BundledExample {
    /// The model folder's and the adapter folder's name, wherever they are.
    private static let names = (model: "tales-5m", adapters: "tales")

    public struct Location: Sendable, Equatable {
        public let model: URL
        public let adapters: URL
    }

    /// Looks in `../share/lorry` beside an installed program, then for `adapters/` in the folders
    /// above a program that was built in a checkout.
    /// - Returns: nil when neither has the model.
    public static func locate(executable: URL) -> Location? {
        let program = executable.resolvingSymlinksInPath().standardizedFileURL
        var folder = program.deletingLastPathComponent()
        var candidates = [folder.deletingLastPathComponent().appending(path: "share/lorry")]
        while folder.pathComponents.count > 1 {
            folder = folder.deletingLastPathComponent()
            candidates.append(folder.appending(path: "adapters"))
        }
        return candidates.lazy.map {
            Location(
                model: $0.appending(path: names.model, directoryHint: .isDirectory),
                adapters: $0.appending(path: names.adapters, directoryHint: .isDirectory))
        }.first {
            FileManager.default.fileExists(atPath: $0.model.appending(path: "config.json").path)
        }
    }
}
