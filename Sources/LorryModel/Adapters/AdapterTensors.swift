/// The tensors of an adapter's file, each of which its method takes exactly once: what is left over
/// at the end is an error that names it.
struct AdapterTensors {
    let source: AdapterSource
    let configuration: ModelConfiguration
    private var remaining: [String: SafetensorsFile.Tensor]
    private let modules: [String: BaseModule]

    /// Before every module's path.
    static let prefix = "base_model.model."

    init(_ source: AdapterSource, configuration: ModelConfiguration) {
        self.source = source
        self.configuration = configuration
        remaining = source.tensors
        modules = Dictionary(
            uniqueKeysWithValues: configuration.modules.map { ($0.path, $0) })
    }

    /// The modules that have a tensor of this name, in the order in which the model runs. Names end
    /// in `.weight` or not, as peft's version has it.
    func modules(having name: String) -> [BaseModule] {
        var found: Set<BaseModule> = []
        for key in remaining.keys {
            guard key.hasPrefix(Self.prefix) else { continue }
            for suffix in [".\(name)", ".\(name).weight"] where key.hasSuffix(suffix) {
                let path = String(key.dropFirst(Self.prefix.count).dropLast(suffix.count))
                if let module = modules[path] { found.insert(module) }
            }
        }
        return found.sorted { $0.order < $1.order }
    }

    /// A tensor by its name in the file.
    mutating func take(_ name: String) -> SafetensorsFile.Tensor? {
        remaining.removeValue(forKey: name)
    }

    /// A module's tensor, with or without `.weight` at its end.
    mutating func take(
        _ module: BaseModule, _ name: String
    ) -> SafetensorsFile.Tensor? {
        let path = "\(Self.prefix)\(module.path).\(name)"
        return take(path) ?? take("\(path).weight")
    }

    /// A module's tensor of weights, of this shape; nil stands for any size.
    mutating func require(
        _ module: BaseModule, _ name: String, shape: [Int?]
    ) throws(AdapterError) -> SafetensorsFile.Tensor {
        guard let tensor = take(module, name) else {
            throw AdapterError(
                .invalid, "\(source.weightsName): \(module.path) has no \(name)",
                about: .module(module.path))
        }
        try check(tensor, shape: shape)
        return tensor
    }

    /// A tensor of weights by its name in the file, of this shape; nil stands for any size.
    mutating func require(
        _ name: String, shape: [Int?]
    ) throws(AdapterError) -> SafetensorsFile.Tensor {
        guard let tensor = take(name) else {
            throw AdapterError(.invalid, "\(source.weightsName): has no tensor '\(name)'")
        }
        try check(tensor, shape: shape)
        return tensor
    }

    /// A module's tensor of whole numbers.
    mutating func requireIntegers(
        _ module: BaseModule, _ name: String, shape: [Int?]
    ) throws(AdapterError) -> SafetensorsFile.Tensor {
        guard let tensor = take(module, name) else {
            throw AdapterError(
                .invalid, "\(source.weightsName): \(module.path) has no \(name)",
                about: .module(module.path))
        }
        guard tensor.dtype.isInteger else {
            throw source.badTensor(
                tensor.name, "has dtype \(tensor.dtype.rawValue), expected whole numbers")
        }
        try checkShape(tensor, shape)
        return tensor
    }

    /// Checks that a tensor is of weights and has a shape; nil stands for any size above 0.
    func check(_ tensor: SafetensorsFile.Tensor, shape: [Int?]) throws(AdapterError) {
        guard tensor.elementType != nil else {
            throw source.badTensor(
                tensor.name, "has dtype \(tensor.dtype.rawValue), expected F32, F16 or BF16")
        }
        try checkShape(tensor, shape)
    }

    private func checkShape(
        _ tensor: SafetensorsFile.Tensor, _ shape: [Int?]
    ) throws(AdapterError) {
        let fits =
            tensor.shape.count == shape.count
            && zip(tensor.shape, shape).allSatisfy { $0 > 0 && $0 == $1 ?? $0 }
        guard fits else {
            let expected = shape.map { $0.map(String.init) ?? "any" }.joined(separator: ", ")
            throw source.badTensor(tensor.name, "has shape \(tensor.shape), expected [\(expected)]")
        }
    }

    /// Discards tensors that change nothing.
    mutating func discard(where isUnused: (String) -> Bool) {
        remaining = remaining.filter { !isUnused($0.key) }
    }

    /// - Throws: `AdapterError` naming a tensor that nothing took.
    func requireEmpty() throws(AdapterError) {
        guard let name = remaining.keys.min() else { return }
        throw source.badTensor(name, "matches no module of the base model that the adapter changes")
    }

    /// The modules that the adapter changes: those that have the tensor `name`, which must be those
    /// that the configuration selects.
    ///
    /// - Throws: `AdapterError` naming a selected module without tensors, or a tensor of a module
    ///   that is not selected, or where there are none.
    func targets(having name: String) throws(AdapterError) -> [BaseModule] {
        try targets(havingAnyOf: [name])
    }

    /// The same for methods that name tensors differently on different modules.
    func targets(havingAnyOf names: [String]) throws(AdapterError) -> [BaseModule] {
        var found: Set<BaseModule> = []
        for name in names { found.formUnion(modules(having: name)) }
        guard !found.isEmpty else {
            throw AdapterError(
                .invalid, "\(source.weightsName): has no \(names[0]) of any module")
        }
        let targets = found.sorted { $0.order < $1.order }
        guard
            let selected = try ModuleTargets(source: source, configuration: configuration)
                .selected()
        else { return targets }
        for module in selected where !found.contains(module) {
            let error = source.bad("target_modules", "\(module.path) has no tensors")
            throw AdapterError(error.kind, error.message, about: .module(module.path))
        }
        let wanted = Set(selected)
        for module in targets where !wanted.contains(module) {
            let error = source.badTensor(
                "\(Self.prefix)\(module.path).\(names[0])",
                "belongs to a module that target_modules does not select")
            throw AdapterError(error.kind, error.message, about: .module(module.path))
        }
        return targets
    }

    /// Linear layers of the decoder only.
    ///
    /// - Throws: `AdapterError` where another module is among them.
    func requireLayers(_ targets: [BaseModule]) throws(AdapterError) {
        for target in targets {
            guard case .linear = target else {
                throw source.unsupported(
                    "target_modules", "'\(target.path)' is not supported as a target of this method"
                )
            }
        }
    }
}
