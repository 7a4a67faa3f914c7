/// Modules that an adapter's file has whole, beside what its method adds: those of
/// `modules_to_save`, and embeddings and head, which peft saves with adapters that concern them.
enum SavedModules {
    /// Takes the saved weights and puts them in the places of the base's.
    ///
    /// Comes before the method's own operations, since tables may have grown.
    static func add(
        from tensors: inout AdapterTensors, to builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let source = tensors.source
        let names = try names(source)
        var unsaved = Set(names)
        var shared: [BaseModule: SafetensorsFile.Tensor] = [:]
        for module in builder.configuration.modules {
            guard let tensor = weight(of: module, &tensors) else { continue }
            unsaved = unsaved.filter { !Self.isNamed(module, $0) }
            let isNamed = names.contains { Self.isNamed(module, $0) }
            guard module.isTable || isNamed else {
                throw source.badTensor(
                    tensor.name, "is a whole module, but modules_to_save does not name it")
            }
            try replace(module, by: tensor, tensors, &builder)
            if isNamed {
                try replaceBias(of: module, &tensors, &builder)
            } else {
                shared[module] = tensor
            }
        }
        if let name = unsaved.min() {
            throw source.bad("modules_to_save", "'\(name)' has no tensors of the base's modules")
        }
        try replaceTied(by: shared, tensors, &builder)
        let answered = builder.dimensions(of: .head).outFeatures
        guard answered <= builder.vocabularySize else {
            throw AdapterError(
                .invalid,
                "\(source.weightsName): lm_head has \(answered) rows, but the embedding only "
                    + "\(builder.vocabularySize): what is answered could not be read")
        }
        guard answered == builder.vocabularySize else {
            throw AdapterError(
                .unsupported,
                "\(source.weightsName): the embedding has \(builder.vocabularySize) rows, but "
                    + "lm_head \(answered): the rows that the head was given are not saved")
        }
    }

    /// A module's whole weight: of `modules_to_save`, or of a table that is saved beside what the
    /// method adds to it.
    private static func weight(
        of module: BaseModule, _ tensors: inout AdapterTensors
    ) -> SafetensorsFile.Tensor? {
        let path = "\(AdapterTensors.prefix)\(module.path)"
        let found =
            tensors.take("\(path).weight") ?? tensors.take("\(path).base_layer.weight")
            ?? tensors.take("\(path).token_adapter.base_layer.weight")
        if found != nil {
            // What else peft saves of a wrapped module says the same again, or is not used.
            for part in ["modules_to_save", "original_module"] {
                _ = tensors.take("\(path).\(part).weight")
                _ = tensors.take("\(path).\(part).bias")
            }
        }
        // Methods with virtual tokens do not wrap the model a second time.
        return found ?? (module.isTable ? tensors.take("base_model.\(module.path).weight") : nil)
    }

    /// Whether a name of `modules_to_save` selects a module or what it lies in: peft compares the
    /// ends of paths, without regard to the dots between their parts.
    private static func isNamed(_ module: BaseModule, _ name: String) -> Bool {
        var path = Substring(module.path)
        while !path.hasSuffix(name) {
            guard let dot = path.lastIndex(of: ".") else { return false }
            path = path[..<dot]
        }
        return true
    }

    private static func replaceBias(
        of module: BaseModule, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        guard builder.configuration.hasBias(module),
            let bias = tensors.take("\(AdapterTensors.prefix)\(module.path).bias")
        else { return }
        try tensors.check(bias, shape: [builder.configuration.dimensions(of: module).outFeatures])
        builder.replaceBias(at: module, vector: .tensor(bias))
    }

    /// Embedding and head that are tied are one tensor, of which peft may save but one name: what
    /// is at either module is at both where it is not the base's.
    private static func replaceTied(
        by shared: [BaseModule: SafetensorsFile.Tensor], _ tensors: AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        guard builder.configuration.tiesEmbeddings else { return }
        let changesBase = LoRAOptions.changesBase(tensors.source)
        for (module, other) in [(BaseModule.embedding, BaseModule.head), (.head, .embedding)] {
            guard let tensor = shared[module], !builder.hasTable(other),
                changesBase || tensor.shape[0] > builder.configuration.vocabularySize
            else { continue }
            try replace(other, by: tensor, tensors, &builder)
        }
    }

    private static func names(_ source: AdapterSource) throws(AdapterError) -> [String] {
        guard let field = source.present("modules_to_save") else { return [] }
        let names = field.stringValue.map { [$0] } ?? field.arrayValue?.compactMap(\.stringValue)
        guard let names else { throw source.bad("modules_to_save", "is not a list of names") }
        return names
    }

    private static func replace(
        _ module: BaseModule, by tensor: SafetensorsFile.Tensor, _ tensors: AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let configuration = builder.configuration
        switch module {
        case .norm(let site):
            try tensors.check(tensor, shape: [configuration.hiddenSize])
            builder.replaceNorm(site, weight: .tensor(tensor))
        case .embedding, .head:
            try tensors.check(tensor, shape: [nil, configuration.hiddenSize])
            guard tensor.shape[0] >= configuration.vocabularySize else {
                throw tensors.source.badTensor(
                    tensor.name,
                    "has \(tensor.shape[0]) rows, the base has \(configuration.vocabularySize)")
            }
            builder.replaceTable(module, rows: .tensor(tensor))
        case .linear:
            let (outFeatures, inFeatures) = configuration.dimensions(of: module)
            try tensors.check(tensor, shape: [outFeatures, inFeatures])
            let place = TensorPlace(tensor)
            builder.addDense(
                at: module,
                matrix: .derived(count: place.count) { reader in
                    zip(reader.floats(place), reader.base.weight(module)).map { $0 - $1 }
                })
        }
    }
}

extension BaseModule {
    /// Whether the module is a table over the vocabulary.
    var isTable: Bool { self == .embedding || self == .head }
}

/// `bias` of a configuration: which biases of the base the file replaces.
struct SavedBiases {
    private enum Extent { case none, all, adapted }
    private let extent: Extent

    /// - Parameter name: the value that stands for the biases of adapted modules.
    init(_ source: AdapterSource, only name: String) throws(AdapterError) {
        switch try source.string("bias") ?? "none" {
        case "none": extent = .none
        case "all": extent = .all
        case let value where value.lowercased() == name.lowercased(): extent = .adapted
        default: throw source.bad("bias", "is not one of none, all, \(name)")
        }
    }

    /// Takes the saved biases: `base_layer.bias` of adapted modules, `bias` of others.
    func add(
        adapted: [BaseModule], from tensors: inout AdapterTensors,
        to builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let source = tensors.source
        let adapted = Set(adapted)
        for module in builder.configuration.modules {
            let path = "\(AdapterTensors.prefix)\(module.path)"
            let own = tensors.take("\(path).base_layer.bias")
            guard let tensor = own ?? tensors.take("\(path).bias") else { continue }
            let isAdapted = adapted.contains(module)
            guard extent == .all || extent == .adapted && isAdapted else {
                throw source.badTensor(tensor.name, "is there, but bias does not say so")
            }
            guard (own != nil) == isAdapted else {
                throw source.badTensor(tensor.name, "does not fit the targets")
            }
            guard builder.configuration.hasBias(module) else {
                throw source.badTensor(
                    tensor.name, "replaces a bias that the base does not have")
            }
            let outFeatures = builder.configuration.dimensions(of: module).outFeatures
            try tensors.check(tensor, shape: [outFeatures])
            builder.replaceBias(at: module, vector: .tensor(tensor))
        }
    }
}
