import LorryConfiguration
import Testing

@Suite struct SettingsResolverTests {
    private func resolve(
        _ flags: [ServeOption: String] = [:], _ environment: [String: String] = [:],
        file: String? = nil
    ) throws -> ServeSettings {
        try SettingsResolver(
            flags: flags, environment: environment, file: file.map { ("lorry.yaml", $0) }
        ).settings()
    }

    private func message(
        _ flags: [ServeOption: String] = [:], _ environment: [String: String] = [:],
        file: String? = nil
    ) -> String? {
        do {
            _ = try resolve(flags, environment, file: file)
            return nil
        } catch {
            return "\(error)"
        }
    }

    @Test func flagsWinOverEnvironmentOverFile() throws {
        let file = "port: 1\nhost: a\nmodel: m\n"
        let settings = try resolve(
            [.port: "3"], ["LORRY_PORT": "2", "LORRY_HOST": "b", "PATH": "x"], file: file)
        #expect(settings.port == 3)
        #expect(settings.host == "b")
        #expect(settings.model == "m")
        #expect(settings.logFormat == .text)
    }

    @Test func readsSizesAndDurations() throws {
        let settings = try resolve([
            .memoryBudget: "1.5GiB", .drainTimeout: "2m", .maximumContext: "512",
        ])
        #expect(settings.memoryBudgetByteCount == 3 << 29)
        #expect(settings.drainTimeout == .seconds(120))
        #expect(settings.maximumContextLength == 512)
        #expect(try resolve([.memoryBudget: "500MB"]).memoryBudgetByteCount == 500_000_000)
        #expect(try resolve([.drainTimeout: "250ms"]).drainTimeout == .milliseconds(250))
    }

    @Test func errorsNameTheSetting() {
        #expect(message([.port: "eighty"])?.contains("--port: 'eighty'") == true)
        #expect(message([:], ["LORRY_THREADS": "0"])?.contains("LORRY_THREADS: '0'") == true)
        #expect(message(file: "weights: int2")?.contains("lorry.yaml: weights: 'int2'") == true)
        #expect(message(file: "wieghts: f32")?.contains("unknown key 'wieghts'") == true)
        #expect(message(file: "- a\n- b")?.contains("lorry.yaml") == true)
        #expect(message(file: "host: [a, b]")?.contains("lorry.yaml: host") == true)
        #expect(message([.memoryBudget: "lots"])?.contains("--memory-budget") == true)
        #expect(message([.strictAdapters: "perhaps"])?.contains("--strict-adapters") == true)
        #expect(message([.tlsCertificate: "c.pem"])?.contains("--tls-key") == true)
    }

    @Test func anEmptyFileAndEmptyVariablesChangeNothing() throws {
        #expect(try resolve([:], ["LORRY_PORT": ""], file: "") == ServeSettings())
    }

    @Test func listsOfRootsComeFromFileOrFlag() throws {
        #expect(
            try resolve(file: "allowed-adapter-root: [/a, /b]").allowedAdapterRoots == ["/a", "/b"])
        #expect(try resolve([.allowedAdapterRoot: "/a:/b"]).allowedAdapterRoots == ["/a", "/b"])
    }
}
