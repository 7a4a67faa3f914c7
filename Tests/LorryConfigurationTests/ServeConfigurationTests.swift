import LorryConfiguration
import Testing

@Suite struct ServeConfigurationTests {
    static let home = ["HOME": "/home/someone"]

    private func resolve(
        _ flags: [ServeSetting: [String]] = [:], environment: [String: String] = [:],
        yaml: String? = nil
    ) throws -> ServeConfiguration {
        try ServeConfiguration.resolve(
            flags: flags, environment: environment.merging(Self.home) { own, _ in own },
            file: yaml.map { try ConfigurationFile(yaml: $0, name: "lorry.yaml") })
    }

    private func message(
        _ flags: [ServeSetting: [String]] = [:], environment: [String: String] = [:],
        yaml: String? = nil
    ) -> String? {
        #expect(throws: ConfigurationError.self) {
            try resolve(flags, environment: environment, yaml: yaml)
        }?.description
    }

    @Test func defaultsAreThePromisedOnes() throws {
        let expected = ServeConfiguration(stateDirectory: "/home/someone/.local/state/lorry")
        let resolved = try resolve()
        #expect(resolved == expected)
        #expect(resolved.host == "127.0.0.1")
        #expect(resolved.port == 8080)
        #expect(resolved.cachesWeights)
        #expect(resolved.drainTimeout == .seconds(30))
    }

    @Test func layersGoFlagEnvironmentFileDefault() throws {
        let environment = ["LORRY_PORT": "2", "LORRY_HOST": "127.0.0.2", "LORRY_MODEL": ""]
        let yaml = "port: 3\nhost: 127.0.0.3\nmodel: /m\nthreads: 3\n"
        let resolved = try resolve([.port: ["9", "1"]], environment: environment, yaml: yaml)
        #expect(resolved.port == 1)
        #expect(resolved.host == "127.0.0.2")
        #expect(resolved.model == "/m")
        #expect(resolved.threadCount == 3)
        #expect(resolved.maximumRunningCount == nil)
    }

    @Test func everySettingIsReadFromEveryLayer() throws {
        let values: [ServeSetting: String] = [
            .model: "/m", .modelName: "n", .adapters: "/a", .strictAdapters: "true",
            .allowedAdapterRoot: "/r", .stateDirectory: "/s", .host: "::1", .port: "1",
            .tlsCertificate: "/c", .tlsKey: "/k", .weights: "int8", .weightCache: "off",
            .adapterWeights: "int8", .kvCache: "bf16", .prefixCache: "off", .threads: "2",
            .memoryBudget: "4GiB", .maxBatchTokens: "3", .maxRunning: "4", .maxWaiting: "5",
            .maxWaitingTokens: "50", .stepTarget: "20ms",
            .maxContext: "6", .apiKeys: "/keys", .allowUnauthenticated: "true",
            .maxConnections: "70", .maxConnectionsPerAddress: "8",
            .drainTimeout: "7s", .logFormat: "json", .logLevel: "debug",
        ]
        #expect(Set(values.keys) == Set(ServeSetting.allCases))
        var expected = ServeConfiguration(stateDirectory: "/s")
        expected.model = "/m"
        expected.modelName = "n"
        expected.adapters = "/a"
        expected.strictAdapters = true
        expected.allowedAdapterRoots = ["/r"]
        expected.host = "::1"
        expected.port = 1
        expected.tlsCertificate = "/c"
        expected.tlsKey = "/k"
        expected.weights = .int8
        expected.cachesWeights = false
        expected.adapterWeights = .int8
        expected.kvCache = .bf16
        expected.cachesPrefixes = false
        expected.threadCount = 2
        expected.memoryBudgetByteCount = 4 << 30
        expected.maximumBatchTokenCount = 3
        expected.maximumRunningCount = 4
        expected.maximumWaitingCount = 5
        expected.maximumWaitingTokenCount = 50
        expected.stepTarget = .milliseconds(20)
        expected.maximumContextTokenCount = 6
        expected.apiKeys = "/keys"
        expected.allowUnauthenticated = true
        expected.maximumConnectionCount = 70
        expected.maximumConnectionCountPerAddress = 8
        expected.drainTimeout = .seconds(7)
        expected.logFormat = .json
        expected.logLevel = .debug
        let environment = Dictionary(
            uniqueKeysWithValues: values.map { ($0.key.environmentName, $0.value) })
        let yaml = values.map { "\($0.key.rawValue): '\($0.value)'\n" }.joined()
        #expect(try resolve(values.mapValues { [$0] }) == expected)
        #expect(try resolve(environment: environment) == expected)
        #expect(try resolve(yaml: yaml) == expected)
    }

    @Test(arguments: [
        (ServeSetting.port, "65536", "0 to 65535"), (.port, "-1", "0 to 65535"),
        (.port, "http", "0 to 65535"), (.threads, "0", "1 to 1024"), (.maxRunning, "1.5", "whole"),
        (.weights, "int7", "f32, bf16, int8, int4"),
        (.adapterWeights, "int4", "f32, bf16, int8"), (.kvCache, "f16", "f32, bf16, int8"),
        (.memoryBudget, "lots", "4GiB"),
        (.memoryBudget, "0", "4GiB"), (.drainTimeout, "soon", "30s"), (.logFormat, "xml", "text"),
        (.logLevel, "loud", "trace"), (.strictAdapters, "maybe", "true or false"),
    ])
    func badValuesAreNamedInEveryLayer(setting: ServeSetting, value: String, hint: String) {
        let layers = [
            (setting.flag, message([setting: [value]])),
            (setting.environmentName, message(environment: [setting.environmentName: value])),
            ("lorry.yaml: \(setting.rawValue)", message(yaml: "\(setting.rawValue): '\(value)'")),
        ]
        for (origin, text) in layers {
            #expect(text?.hasPrefix("\(origin): ") == true, "\(text ?? "no error")")
            #expect(text?.contains("'\(value)'") == true)
            #expect(text?.contains(hint) == true)
        }
    }

    @Test func listsComeInEveryForm() throws {
        let roots = ["/a", "/b c"]
        #expect(try resolve([.allowedAdapterRoot: roots]).allowedAdapterRoots == roots)
        #expect(
            try resolve(environment: ["LORRY_ALLOWED_ADAPTER_ROOT": "/a:/b c"])
                .allowedAdapterRoots == roots)
        #expect(
            try resolve(yaml: "allowed-adapter-root: [/a, /b c]").allowedAdapterRoots == roots)
        #expect(try resolve(yaml: "allowed-adapter-root: /a").allowedAdapterRoots == ["/a"])
        #expect(
            message(environment: ["LORRY_ALLOWED_ADAPTER_ROOT": "/a:"])?.contains("empty") == true)
    }

    @Test(arguments: [
        ("127.0.0.1", true), ("127.8.9.10", true), ("localhost", true), ("::1", true),
        ("LOCALHOST", true), ("0.0.0.0", false), ("::", false), ("127.0.0.1.example", false),
        ("127.0.0", false), ("10.0.0.1", false), ("localhost.example", false),
    ])
    func onlyLoopbackIsServedWithoutKeys(host: String, isAllowed: Bool) throws {
        if isAllowed {
            #expect(try resolve([.host: [host]]).host == host)
        } else {
            let text = message([.host: [host]])
            #expect(text?.contains("'\(host)'") == true)
            #expect(text?.contains("--allow-unauthenticated") == true)
        }
        #expect(try resolve([.host: [host], .apiKeys: ["/keys"]]).host == host)
        #expect(try resolve([.host: [host], .allowUnauthenticated: ["true"]]).host == host)
    }

    @Test func tlsNeedsBothFiles() {
        #expect(message([.tlsCertificate: ["/c"]]) == "--tls-cert needs --tls-key")
        #expect(message([.tlsKey: ["/k"]]) == "--tls-key needs --tls-cert")
    }

    @Test func stateDirectoryFollowsTheXDGSpecification() throws {
        #expect(
            try resolve(environment: ["XDG_STATE_HOME": "/x"]).stateDirectory == "/x/lorry")
        #expect(
            try resolve(environment: ["XDG_STATE_HOME": "x"]).stateDirectory
                == "/home/someone/.local/state/lorry")
        let error = #expect(throws: ConfigurationError.self) {
            try ServeConfiguration.resolve(flags: [:], environment: [:])
        }
        #expect(error?.description.contains("--state-dir") == true)
    }

    @Test func unknownVariablesAreWarnedAboutButServiceLinksAreNot() throws {
        let resolved = try resolve(environment: [
            "LORRY_MAX_RUNING": "4", "LORRY_ZZZ": "1", "LORRY_CONFIG": "x", "LORRY_KERNELS": "avx2",
            "LORRY_PORT": "tcp://10.0.0.1:8080", "LORRY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "LORRY_PORT_8080_TCP_ADDR": "10.0.0.1", "LORRY_SERVICE_HOST": "10.0.0.1",
            "LORRY_WEB_SERVICE_PORT_HTTP": "80", "LORRYX": "1", "PATH": "/bin",
        ])
        #expect(resolved.port == 8080)
        #expect(
            resolved.warnings == [
                "unknown environment variable LORRY_MAX_RUNING; did you mean 'max-running'?",
                "unknown environment variable LORRY_ZZZ",
            ])
    }
}
