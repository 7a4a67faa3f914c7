/// Finds a setting's value in the first layer that has it and reads it as its type.
struct LayeredSettings {
    let flags: [ServeSetting: [String]]
    let environment: [String: String]
    let file: ConfigurationFile?

    /// Values as written, with the name to use in a message about them.
    private struct Found {
        let values: [String]
        let origin: String
    }

    func text(_ setting: ServeSetting) throws(ConfigurationError) -> String? {
        try single(setting)?.value
    }

    func list(_ setting: ServeSetting) throws(ConfigurationError) -> [String] {
        guard let found = find(setting, listSeparator: ":") else { return [] }
        if found.values.contains("") {
            throw ConfigurationError("\(found.origin): an entry is empty")
        }
        return found.values
    }

    func flag(
        _ setting: ServeSetting, default missing: Bool = false
    ) throws(ConfigurationError) -> Bool {
        guard let (value, origin) = try single(setting) else { return missing }
        switch value.lowercased() {
        case "true", "yes", "on", "1": return true
        case "false", "no", "off", "0": return false
        default:
            throw ConfigurationError(
                "\(origin): '\(value)' is none of on, off, true, false, yes, no, 1, 0")
        }
    }

    func number(
        _ setting: ServeSetting, _ range: ClosedRange<Int>
    ) throws(ConfigurationError) -> Int? {
        guard let (value, origin) = try single(setting) else { return nil }
        guard let number = Int(value), range.contains(number) else {
            throw ConfigurationError(
                "\(origin): '\(value)' is not a whole number from \(range.lowerBound) to "
                    + "\(range.upperBound)")
        }
        return number
    }

    func choice<Choice: RawRepresentable<String> & CaseIterable>(
        _ setting: ServeSetting
    ) throws(ConfigurationError) -> Choice? {
        guard let (value, origin) = try single(setting) else { return nil }
        guard let choice = Choice(rawValue: value.lowercased()) else {
            let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw ConfigurationError("\(origin): '\(value)' is none of \(known)")
        }
        return choice
    }

    func byteCount(_ setting: ServeSetting) throws(ConfigurationError) -> Int? {
        guard let (value, origin) = try single(setting) else { return nil }
        guard let count = ByteSize.parse(value), count > 0 else {
            throw ConfigurationError(
                "\(origin): '\(value)' is not a size such as 512MiB, 4GiB or 4GB")
        }
        return count
    }

    func duration(_ setting: ServeSetting) throws(ConfigurationError) -> Duration? {
        guard let (value, origin) = try single(setting) else { return nil }
        guard let duration = DurationText.parse(value) else {
            throw ConfigurationError(
                "\(origin): '\(value)' is not a duration such as 500ms, 30s or 1m30s")
        }
        return duration
    }

    /// The environment is not all ours: what is close to a setting but none is only told.
    func warnings() -> [String] {
        let known = Set(
            ServeSetting.allCases.map(\.environmentName)
                + [
                    ServeSetting.configEnvironmentName,
                    // Read elsewhere: the kernels' level, and what the client commands talk to.
                    "LORRY_KERNELS", "LORRY_URL", "LORRY_API_KEY",
                ])
        return environment.keys.sorted().compactMap { name in
            guard name.hasPrefix("LORRY_"), !known.contains(name),
                !Self.isServiceLink(name, environment[name] ?? "")
            else { return nil }
            let setting = name.dropFirst(6).lowercased().replacing("_", with: "-")
            return "unknown environment variable \(name)\(suggestion(for: setting))"
        }
    }

    /// Kubernetes describes every service of a namespace in variables with the service's name in
    /// front; for one called `lorry` there is even `LORRY_PORT=tcp://10.0.0.1:8080`.
    private static func isServiceLink(_ name: String, _ value: String) -> Bool {
        value.hasPrefix("tcp://") || value.hasPrefix("udp://") || name.contains("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT") || name.contains(#/_PORT_\d+_(TCP|UDP)/#)
    }

    private func single(
        _ setting: ServeSetting
    ) throws(ConfigurationError) -> (value: String, origin: String)? {
        guard let found = find(setting, listSeparator: nil) else { return nil }
        guard let value = found.values.last, !value.isEmpty else {
            throw ConfigurationError("\(found.origin): needs a value")
        }
        return (value, found.origin)
    }

    private func find(_ setting: ServeSetting, listSeparator: Character?) -> Found? {
        if let values = flags[setting], !values.isEmpty {
            return Found(values: values, origin: setting.flag)
        }
        let name = setting.environmentName
        if let value = environment[name], !value.isEmpty, !Self.isServiceLink(name, value) {
            let values =
                listSeparator.map {
                    value.split(separator: $0, omittingEmptySubsequences: false).map(String.init)
                } ?? [value]
            return Found(values: values, origin: name)
        }
        if let file, let values = file.values[setting] {
            return Found(values: values, origin: "\(file.name): \(setting.rawValue)")
        }
        return nil
    }
}
