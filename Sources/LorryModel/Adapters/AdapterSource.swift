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
        do { value = try files.parsedConfiguration() } catch {
            throw AdapterError(.invalid, "\(Self.configurationFile): \(error)")
        }
        guard let object = value.objectValue else {
            throw AdapterError(.invalid, "\(Self.configurationFile): is not a JSON object")
        }
        configuration = object
        weightsName = files.weightsName
        let weights = try files.weights.get()
        do { tensors = try AdapterFiles.tensors(of: weights) } catch {
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
        if let name = namesOfInfinite.first { throw infinite(name) }
    }

    /// What `checkElements` says of each tensor.
    var elementProblems: [String] { namesOfInfinite.map { infinite($0).message } }

    private func infinite(_ name: String) -> AdapterError {
        badTensor(name, "has a NaN or an infinity")
    }

    /// In the order in which they lie in the file, which is read once.
    private var namesOfInfinite: some Collection<String> {
        tensors.values.sorted { $0.fileOffset < $1.fileOffset }.lazy.filter { !$0.isFinite }
            .map(\.name)
    }
}

extension SafetensorsFile.Tensor {
    /// Whether no element is NaN or infinite. True of integers. What it has read leaves memory
    /// again.
    fileprivate var isFinite: Bool {
        guard let elementType else { return true }
        return bytes.allSatisfy(ofPieces: Self.pieceByteCount) { piece in
            FactorSource(bytes: piece, elementType: elementType).isFinite
        }
    }

    /// A multiple of every element's size.
    private static let pieceByteCount = 8 << 20
}
