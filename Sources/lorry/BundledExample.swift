import Foundation

/// Finds the example model that ships with Lorry.
enum BundledExample {
    static let name = "tales-5m"

    /// Beside the program: `share/lorry` of an installation, or `adapters` of a checkout in which it
    /// was built; then `adapters` of the current folder.
    static func modelDirectory() -> URL? {
        let program = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        var candidates: [URL] = []
        var folder = program.deletingLastPathComponent()
        while folder.path != "/" {
            candidates.append(folder.appending(path: "share/lorry/\(name)"))
            candidates.append(folder.appending(path: "adapters/\(name)"))
            folder.deleteLastPathComponent()
        }
        candidates.append(
            URL(filePath: FileManager.default.currentDirectoryPath)
                .appending(path: "adapters/\(name)"))
        return candidates.first {
            FileManager.default.fileExists(atPath: $0.appending(path: "config.json").path)
        }
    }
}
