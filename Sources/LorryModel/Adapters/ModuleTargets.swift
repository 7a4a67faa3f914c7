/// Which modules of the base an adapter's configuration selects, by peft's rules
/// (`check_target_module_exists` and `_maybe_include_all_linear_layers` of peft 0.21).
struct ModuleTargets {
    private let source: AdapterSource
    private let configuration: ModelConfiguration

    init(source: AdapterSource, configuration: ModelConfiguration) {
        self.source = source
        self.configuration = configuration
    }

    /// The selected modules that an adapter's layers can be put around, or nil where the
    /// configuration leaves the choice to the tensors.
    ///
    /// - Throws: `AdapterError` naming the field.
    func selected() throws(AdapterError) -> [BaseModule]? {
        guard let field = source.configuration["target_modules"], !field.isNull else { return nil }
        let isSelected = try selection(field)
        let isExcluded = try exclusion()
        let isSaved = try saved()
        var selected: [BaseModule] = []
        for module in configuration.modules {
            if case .norm = module { continue }
            let path = module.path
            if try isSelected(path), try !isExcluded(path), !isSaved(path) {
                selected.append(module)
            }
        }
        // The head that is tied is a target too, whose factors are the embedding's, transposed.
        if configuration.tiesEmbeddings, try source.flag("ensure_weight_tying"),
            selected.contains(.embedding), !selected.contains(.head)
        {
            selected.append(.head)
        }
        return selected
    }

    /// Norms that the configuration selects.
    func selectedNorms() throws(AdapterError) -> [BaseModule]? {
        guard let field = source.configuration["target_modules"], !field.isNull else { return nil }
        let isSelected = try selection(field)
        let isExcluded = try exclusion()
        var selected: [BaseModule] = []
        for module in configuration.modules {
            guard case .norm = module else { continue }
            if try isSelected(module.path), try !isExcluded(module.path) {
                selected.append(module)
            }
        }
        return selected
    }

    /// Modules that are saved whole are not adapted: those at or under a name of
    /// `modules_to_save`.
    private func saved() throws(AdapterError) -> (String) -> Bool {
        guard let field = source.configuration["modules_to_save"], !field.isNull else {
            return { _ in false }
        }
        let names = try self.names("modules_to_save", field)
        return { path in
            names.contains { ".\(path).".contains(".\($0).") }
        }
    }

    private typealias Predicate = (String) throws(AdapterError) -> Bool

    private func selection(_ field: StrictJSON) throws(AdapterError) -> Predicate {
        if let pattern = field.stringValue {
            if pattern.lowercased() == "all-linear" { return { $0.hasPrefix("model.layers.") } }
            return try fullMatch("target_modules", pattern)
        }
        let names = try self.names("target_modules", field)
        let isWanted = try layerFilter()
        return { path throws(AdapterError) in
            if names.contains(path) { return true }
            guard names.contains(where: { path.hasSuffix(".\($0)") }) else { return false }
            return try isWanted(path)
        }
    }

    private func exclusion() throws(AdapterError) -> Predicate {
        guard let field = source.configuration["exclude_modules"], !field.isNull else {
            return { _ in false }
        }
        if let pattern = field.stringValue { return try fullMatch("exclude_modules", pattern) }
        let names = try self.names("exclude_modules", field)
        return { path in
            names.contains { path == $0 || path.hasSuffix(".\($0)") }
        }
    }

    private func names(_ field: String, _ value: StrictJSON) throws(AdapterError) -> Set<String> {
        guard let entries = value.arrayValue else {
            throw source.bad(field, "is neither a list of names nor a pattern")
        }
        var names: Set<String> = []
        for entry in entries {
            guard let name = entry.stringValue else {
                throw source.bad(field, "has an entry that is not a string")
            }
            names.insert(name)
        }
        return names
    }

    private func fullMatch(_ field: String, _ text: String) throws(AdapterError) -> Predicate {
        let pattern = try compile(field, text, anchoring: .both)
        return { path throws(AdapterError) in
            try captures(of: pattern, in: path, field) != nil
        }
    }

    private func compile(
        _ field: String, _ text: String, anchoring: ModulePattern.Anchoring
    ) throws(AdapterError) -> ModulePattern {
        do { return try ModulePattern(text, anchoring: anchoring) } catch {
            throw source.bad(field, "'\(text)' \(error.reason)")
        }
    }

    private func captures(
        of pattern: ModulePattern, in path: String, _ field: String
    ) throws(AdapterError) -> [String?]? {
        do { return try pattern.captures(path) } catch { throw source.bad(field, error.reason) }
    }

    // MARK: layers_to_transform

    /// Whether a module lies in a layer that `layers_to_transform` lists.
    private func layerFilter() throws(AdapterError) -> Predicate {
        guard let field = source.configuration["layers_to_transform"], !field.isNull else {
            return { _ in true }
        }
        var layers: Set<Int> = []
        for entry in field.arrayValue ?? [field] {
            guard let layer = entry.integerValue, (0..<configuration.layerCount).contains(layer)
            else {
                throw source.bad(
                    "layers_to_transform",
                    "has an entry that is no layer of the base (0..<\(configuration.layerCount))")
            }
            layers.insert(layer)
        }
        let patterns = try layerPatterns()
        return { [layers] path throws(AdapterError) in
            for pattern in patterns {
                let captures = try captures(of: pattern, in: path, "layers_pattern")
                if let index = captures?.last.flatMap({ $0 }).flatMap({ Int($0) }) {
                    return layers.contains(index)
                }
            }
            return false
        }
    }

    private func layerPatterns() throws(AdapterError) -> [ModulePattern] {
        let field = "layers_pattern"
        var names: [String] = []
        if let value = source.configuration[field], !value.isNull {
            if let name = value.stringValue {
                names = name.isEmpty ? [] : [name]
            } else {
                names = try self.names(field, value).sorted()
            }
        }
        guard !names.isEmpty else {
            return [try compile(field, #".*?\.[^.]*\.(\d+)\."#, anchoring: .start)]
        }
        var patterns: [ModulePattern] = []
        for name in names {
            patterns.append(
                try compile(field, #"(?:^|.*?\.)"# + name + #"\.(\d+)\."#, anchoring: .start))
        }
        return patterns
    }
}

/// `rank_pattern` or `alpha_pattern`: values for modules whose path ends with a pattern.
struct ModuleOverrides {
    private let entries: [(pattern: ModulePattern, value: Double)]
    private let field: String
    private let source: AdapterSource

    init(_ field: String, source: AdapterSource) throws(AdapterError) {
        self.field = field
        self.source = source
        guard let value = source.configuration[field], !value.isNull else {
            entries = []
            return
        }
        guard let object = value.objectValue else { throw source.bad(field, "is not an object") }
        var entries: [(ModulePattern, Double)] = []
        for (key, value) in object.members {
            guard let number = value.numberValue, number > 0, number.isFinite else {
                throw source.bad("\(field).\(key)", "is not a positive number")
            }
            do {
                entries.append((try ModulePattern("(.*\\.)?(\(key))$", anchoring: .start), number))
            } catch {
                throw source.bad("\(field).\(key)", error.reason)
            }
        }
        self.entries = entries
    }

    /// The values of all patterns that match, in file order; peft takes the first.
    func values(for path: String) throws(AdapterError) -> [Double] {
        var values: [Double] = []
        for (pattern, value) in entries {
            do {
                if try pattern.matches(path) { values.append(value) }
            } catch {
                throw source.bad(field, error.reason)
            }
        }
        return values
    }
}
