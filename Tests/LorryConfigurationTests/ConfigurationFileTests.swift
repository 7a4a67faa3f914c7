import Foundation
import LorryConfiguration
import Testing

@Suite struct ConfigurationFileTests {
    @Test(arguments: [
        ("prot: 1", "unknown key 'prot'; did you mean 'port'?"),
        ("config: other.yaml", "unknown key 'config'"), ("1: 2", "unknown key '1'"),
        ("[a]: 2", "unknown key '?'"), ("port:", "port: needs a value"),
        ("port: ~", "port: needs a value"), ("port: {a: 1}", "port: needs a value"),
        ("allowed-adapter-root: [[a]]", "allowed-adapter-root: a list"), ("- a", "top level"),
        ("text", "top level"), ("port: 1\nport: 2", "not valid YAML"), ("a: [", "not valid YAML"),
    ])
    func badFilesAreNamed(yaml: String, part: String) {
        let error = #expect(throws: ConfigurationError.self) {
            try ConfigurationFile(yaml: yaml, name: "f.yaml")
        }
        #expect(error?.description.hasPrefix("f.yaml: ") == true)
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
    }

    @Test(arguments: ["", "\n", "# only a comment\n", "---\n", "{}", "~"])
    func emptyFilesSetNothing(yaml: String) throws {
        let file = try ConfigurationFile(yaml: yaml, name: "f")
        #expect(file == (try ConfigurationFile(yaml: "", name: "f")))
    }

    @Test func aMissingFileIsNamed() {
        let error = #expect(throws: ConfigurationError.self) {
            try ConfigurationFile(path: "/does/not/exist.yaml")
        }
        #expect(error?.description.contains("'/does/not/exist.yaml'") == true)
    }

    /// The example in deploy/ must always be one that the server takes.
    @Test func theDeployedExampleResolves() throws {
        let top = URL(filePath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let path = top.appending(path: "deploy/lorry.yaml").path
        let resolved = try ServeConfiguration.resolve(
            flags: [:], environment: ["HOME": "/h"], file: ConfigurationFile(path: path))
        #expect(resolved.logFormat == .json)
        #expect(resolved.drainTimeout == .seconds(60))
        // With every line that is commented out switched on, too.
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let full = text.replacing(#/(?m)^#([a-z-]+:)/#) { $0.1 }
        let file = try ConfigurationFile(yaml: full, name: "full")
        let everything = try ServeConfiguration.resolve(
            flags: [:], environment: ["HOME": "/h"], file: file)
        #expect(everything.memoryBudgetByteCount == 4 << 30)
        #expect(everything.allowedAdapterRoots == ["/srv/adapters"])
        #expect(everything.tlsKey != nil)
    }

    @Test func theBundledExampleIsFoundFromABuildFolder() throws {
        let top = URL(filePath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let found = BundledExample.locate(
            executable: top.appending(path: ".build/x/release/lorry"))
        #expect(found?.model.lastPathComponent == "tales-5m")
        #expect(BundledExample.locate(executable: URL(filePath: "/nowhere/bin/lorry")) == nil)
    }
}
