import Foundation

/// An adapter's files, opened: what a PEFT method's compiler reads.
public struct AdapterSource: Sendable {
    static let configurationFile = "adapter_config.json"
    static let weightsFile = "adapter_model.safetensors"
    /// Configurations above this are refused.
    static let maximumConfigurationByteCount = 4 << 20

    public let configuration: StrictJSON.Object
    /// Tensors by their names in the file.
    public let tensors: [String: SafetensorsFile.Tensor]

    /// - Throws: `AdapterError` naming the file at fault.
    init(directory: URL) throws(AdapterError) {
        let path = directory.appending(path: Self.configurationFile).path
        let file: MappedFile
        do { file = try MappedFile(path: path) } catch {
            throw AdapterError(.unreadable, "\(Self.configurationFile): \(error.reason)")
        }
        guard file.bytes.count <= Self.maximumConfigurationByteCount else {
            throw AdapterError(
                .invalid,
                "\(Self.configurationFile): larger than \(Self.maximumConfigurationByteCount) bytes"
            )
        }
        let value: StrictJSON
        do { value = try StrictJSON(parsing: file.bytes) } catch {
            throw AdapterError(.invalid, "\(Self.configurationFile): \(error)")
        }
        guard let object = value.objectValue else {
            throw AdapterError(.invalid, "\(Self.configurationFile): is not a JSON object")
        }
        configuration = object
        let weights = directory.appending(path: Self.weightsFile).path
        guard FileManager.default.fileExists(atPath: weights) else {
            throw AdapterError(.unreadable, Self.missingWeights(directory))
        }
        do { tensors = try SafetensorsFile(path: weights).tensors } catch {
            throw AdapterError(.invalid, "\(Self.weightsFile): \(error.reason)")
        }
    }

    private static func missingWeights(_ directory: URL) -> String {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
        guard names.contains("adapter_model.bin") else { return "\(weightsFile): is missing" }
        return "adapter_model.bin is a pickle, which can run code when it is read; "
            + "save the adapter as \(weightsFile)"
    }

    func bad(_ field: String, _ reason: String) -> AdapterError {
        AdapterError(.invalid, "\(Self.configurationFile): \(field): \(reason)")
    }

    func unsupported(_ field: String, _ reason: String) -> AdapterError {
        AdapterError(.unsupported, "\(Self.configurationFile): \(field): \(reason)")
    }

    func badTensor(_ name: String, _ reason: String) -> AdapterError {
        AdapterError(.invalid, "\(Self.weightsFile): tensor '\(name)' \(reason)")
    }

    /// Every tensor must be finite numbers of a type that weights may have.
    func checkElements() throws(AdapterError) {
        for (name, tensor) in tensors {
            guard tensor.elementType != nil else {
                throw badTensor(
                    name, "has dtype \(tensor.dtype.rawValue), expected F32, F16 or BF16")
            }
            guard tensor.isFinite else { throw badTensor(name, "has a NaN or an infinity") }
        }
    }
}

extension SafetensorsFile.Tensor {
    /// Whether no element is NaN or infinite. For floating-point types of 16 and 32 bits.
    var isFinite: Bool {
        switch dtype {
        case .f32: !hasExponent(of: UInt32.self, mask: 0x7F80_0000)
        case .f16: !hasExponent(of: UInt16.self, mask: 0x7C00)
        case .bf16: !hasExponent(of: UInt16.self, mask: 0x7F80)
        default: true
        }
    }

    /// Whether any element has all bits of the mask set.
    private func hasExponent<Bits: FixedWidthInteger & BitwiseCopyable>(
        of type: Bits.Type, mask: Bits
    ) -> Bool {
        var found = false
        for index in 0..<elementCount {
            let bits = bytes.bytes.loadUnaligned(
                fromByteOffset: index * MemoryLayout<Bits>.size, as: type)
            found = found || bits & mask == mask
        }
        return found
    }
}
