import Yams

/// Layers the sources of settings: flag, then environment, then file; what none gives has its
/// default.
public struct SettingsResolver {
    private struct Value {
        let text: String
        /// Names the source in errors: `--port`, `LORRY_PORT`, `lorry.yaml: port`.
        let origin: String
    }

    private var values: [ServeOption: Value] = [:]

    /// - Parameters:
    ///   - flags: values given on the command line; `true` for a switch that was given.
    ///   - environment: all variables of the process; those that are not Lorry's are ignored.
    ///   - file: the configuration file's name and text.
    /// - Throws: `ConfigurationError` for a file that is no YAML mapping of known keys to values.
    public init(
        flags: [ServeOption: String], environment: [String: String],
        file: (name: String, text: String)?
    ) throws(ConfigurationError) {
        if let file { try addFile(file.name, file.text) }
        for option in ServeOption.allCases {
            // An empty variable counts as not set, as usual for containers.
            if let text = environment[option.environmentName], !text.isEmpty {
                values[option] = Value(text: text, origin: option.environmentName)
            }
            if let text = flags[option] { values[option] = Value(text: text, origin: option.flag) }
        }
    }

    private mutating func addFile(_ name: String, _ text: String) throws(ConfigurationError) {
        let node: Node?
        do { node = try Yams.compose(yaml: text) } catch {
            throw ConfigurationError("\(name): is not valid YAML: \(error)")
        }
        guard let node, node.null == nil else { return }
        guard let mapping = node.mapping else {
            throw ConfigurationError("\(name): is not a mapping of keys to values")
        }
        for (key, value) in mapping {
            guard let keyText = key.string, let option = ServeOption(rawValue: keyText) else {
                throw ConfigurationError("\(name): unknown key '\(key.string ?? "?")'")
            }
            let origin = "\(name): \(option.rawValue)"
            if let text = value.scalar?.string {
                values[option] = Value(text: text, origin: origin)
            } else if let sequence = value.sequence, option == .allowedAdapterRoot {
                values[option] = Value(
                    text: sequence.compactMap(\.string).joined(separator: ":"), origin: origin)
            } else {
                throw ConfigurationError("\(origin): is not a single value")
            }
        }
    }

    /// - Throws: `ConfigurationError` naming the setting whose value is bad.
    public func settings() throws(ConfigurationError) -> ServeSettings {
        var settings = ServeSettings()
        settings.model = values[.model]?.text
        settings.modelName = values[.modelName]?.text
        settings.adapters = values[.adapters]?.text
        settings.stateDirectory = values[.stateDirectory]?.text
        settings.apiKeysFile = values[.apiKeys]?.text
        settings.host = values[.host]?.text ?? settings.host
        settings.port = try integer(.port, in: 0...65_535) ?? settings.port
        settings.weights = try choice(.weights)
        settings.threadCount = try integer(.threads, in: 1...1024)
        settings.memoryBudgetByteCount = try size(.memoryBudget)
        settings.maximumBatchTokenCount = try integer(.maximumBatchTokens, in: 1...65_536)
        settings.maximumRunningCount = try integer(.maximumRunning, in: 1...65_536)
        settings.maximumWaitingCount = try integer(.maximumWaiting, in: 1...1_000_000)
        settings.maximumContextLength = try integer(.maximumContext, in: 1...Int(Int32.max))
        settings.isStrictAboutAdapters = try flag(.strictAdapters)
        settings.allowsUnauthenticated = try flag(.allowUnauthenticated)
        settings.allowedAdapterRoots =
            values[.allowedAdapterRoot]?.text.split(separator: ":").map(String.init) ?? []
        settings.drainTimeout = try duration(.drainTimeout) ?? settings.drainTimeout
        settings.logFormat = try choice(.logFormat) ?? settings.logFormat
        settings.logLevel = try logLevel() ?? settings.logLevel
        settings.tls = try tls()
        return settings
    }

    // MARK: - Values

    private func bad(_ value: Value, _ reason: String) -> ConfigurationError {
        ConfigurationError("\(value.origin): '\(value.text)' \(reason)")
    }

    private func integer(
        _ option: ServeOption, in range: ClosedRange<Int>
    ) throws(ConfigurationError) -> Int? {
        guard let value = values[option] else { return nil }
        guard let number = Int(value.text), range.contains(number) else {
            throw bad(
                value, "is not a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private func flag(_ option: ServeOption) throws(ConfigurationError) -> Bool {
        guard let value = values[option] else { return false }
        switch value.text.lowercased() {
        case "true", "1", "yes", "on": return true
        case "false", "0", "no", "off": return false
        default: throw bad(value, "is neither true nor false")
        }
    }

    private func choice<Choice: RawRepresentable & CaseIterable>(
        _ option: ServeOption
    ) throws(ConfigurationError) -> Choice? where Choice.RawValue == String {
        guard let value = values[option] else { return nil }
        guard let choice = Choice(rawValue: value.text) else {
            let names = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw bad(value, "is not one of \(names)")
        }
        return choice
    }

    private func logLevel() throws(ConfigurationError) -> String? {
        guard let value = values[.logLevel] else { return nil }
        let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]
        guard levels.contains(value.text) else {
            throw bad(value, "is not one of \(levels.joined(separator: ", "))")
        }
        return value.text
    }

    /// Bytes: a number with an optional unit (`512MiB`, `4GiB`, `1.5G`).
    private func size(_ option: ServeOption) throws(ConfigurationError) -> Int? {
        guard let value = values[option] else { return nil }
        let units: [String: Double] = [
            "": 1, "b": 1, "k": 0x1p10, "kib": 0x1p10, "kb": 1e3, "m": 0x1p20, "mib": 0x1p20,
            "mb": 1e6, "g": 0x1p30, "gib": 0x1p30, "gb": 1e9, "t": 0x1p40, "tib": 0x1p40,
            "tb": 1e12,
        ]
        let bytes = amount(value.text, units: units)
        guard let bytes, bytes >= 1, bytes < 0x1p60 else {
            throw bad(value, "is not a size such as 512MiB or 4GiB")
        }
        return Int(bytes)
    }

    /// A number of seconds with an optional unit (`500ms`, `30s`, `2m`, `1h`).
    private func duration(_ option: ServeOption) throws(ConfigurationError) -> Duration? {
        guard let value = values[option] else { return nil }
        let units: [String: Double] = ["": 1, "ms": 1e-3, "s": 1, "m": 60, "h": 3600]
        let seconds = amount(value.text, units: units)
        guard let seconds, seconds >= 0, seconds < 1e6 else {
            throw bad(value, "is not a duration such as 30s or 2m")
        }
        return .milliseconds(Int(seconds * 1000))
    }

    private func amount(_ text: String, units: [String: Double]) -> Double? {
        let number = text.prefix { $0.isNumber || $0 == "." }
        let unit = text.dropFirst(number.count).trimmingPrefix(" ").lowercased()
        guard let factor = units[unit], let value = Double(number) else { return nil }
        return value * factor
    }

    private func tls() throws(ConfigurationError) -> ServeSettings.TLSFiles? {
        switch (values[.tlsCertificate], values[.tlsKey]) {
        case (nil, nil): return nil
        case (let certificate?, let key?):
            return .init(certificateChain: certificate.text, privateKey: key.text)
        case (let given?, nil):
            throw ConfigurationError("\(given.origin): needs \(ServeOption.tlsKey.flag) too")
        case (nil, let given?):
            throw ConfigurationError("\(given.origin): needs \(ServeOption.tlsCertificate.flag) too")
        }
    }
}
