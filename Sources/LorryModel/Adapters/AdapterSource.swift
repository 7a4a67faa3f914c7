import LorryTensor

/// An adapter's files, opened: what a PEFT method's compiler reads.
public struct AdapterSource: Sendable {
    static let configurationFile = AdapterFiles.configurationName
    static let weightsFile = AdapterFiles.weightsNames[0]

    public let configuration: StrictJSON.Object
    /// Tensors by their names in the file.
    public let tensors: [String: SafetensorsFile.Tensor]
    /// The file that has them.
    let weightsName: String

    init(
        configuration: StrictJSON.Object, tensors: [String: SafetensorsFile.Tensor],
        weightsName: String = Self.weightsFile
    ) {
        self.configuration = configuration
        self.weightsName = weightsName
        self.tensors = tensors
    }

    /// - Throws: `AdapterError` naming the file at fault.
    init(_ files: AdapterFiles) throws(AdapterError) {
        let value: StrictJSON
        do { value = try StrictJSON(parsing: files.configuration.bytes) } catch {
            throw AdapterError(.invalid, "\(Self.configurationFile): \(error)")
        }
        guard let object = value.objectValue else {
            throw AdapterError(.invalid, "\(Self.configurationFile): is not a JSON object")
        }
        configuration = object
        weightsName = files.weightsName
        let weights = try files.weights.get()
        do { tensors = try SafetensorsFile(weights).tensors } catch {
            throw AdapterError(.invalid, "\(files.weightsName): \(error.reason)")
        }
    }

    func bad(_ field: String, _ reason: String) -> AdapterError {
        AdapterError(
            .invalid, "\(Self.configurationFile): \(field): \(reason)", about: .field(field))
    }

    func unsupported(_ field: String, _ reason: String) -> AdapterError {
        AdapterError(
            .unsupported, "\(Self.configurationFile): \(field): \(reason)", about: .field(field))
    }

    func badTensor(_ name: String, _ reason: String) -> AdapterError {
        AdapterError(
            .invalid, "\(weightsName): tensor '\(name)' \(reason)", about: .tensor(name))
    }

    /// Every tensor of weights must be finite numbers. The methods check the types.
    func checkElements() throws(AdapterError) {
        for (name, tensor) in tensors {
            guard tensor.isFinite else { throw badTensor(name, "has a NaN or an infinity") }
        }
    }
}

extension SafetensorsFile.Tensor {
    /// Whether no element is NaN or infinite. True of integers.
    var isFinite: Bool {
        guard let elementType else { return true }
        return FactorSource(bytes: bytes.bytes, elementType: elementType).isFinite
    }
}
