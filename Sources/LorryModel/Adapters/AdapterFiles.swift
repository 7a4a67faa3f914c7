import Foundation

/// The checksums of an adapter's files as they were when they were checked.
public struct AdapterChecksums: Sendable, Equatable {
    public let configuration: ContentChecksum
    public let weights: ContentChecksum

    public init(configuration: ContentChecksum, weights: ContentChecksum) {
        self.configuration = configuration
        self.weights = weights
    }
}

/// An adapter's files, mapped and not yet read.
struct AdapterFiles: Sendable {
    static let configurationName = "adapter_config.json"
    /// As peft and as AdapterHub's library name it.
    static let weightsNames = ["adapter_model.safetensors", "adapter.safetensors"]
    /// Configurations above this are refused.
    static let maximumConfigurationByteCount = 4 << 20
    /// Headers above this are refused: room for some 50,000 tensors.
    package static let maximumHeaderByteCount = 8 << 20

    let configuration: MappedFile
    /// The one of the names that the folder has.
    let weightsName: String
    /// A failure waits until the configuration has been read: that is where users look first.
    let weights: Result<MappedFile, AdapterError>

    /// - Throws: `AdapterError` where the configuration cannot be read.
    init(directory: URL) throws(AdapterError) {
        let path = directory.appending(path: Self.configurationName).path
        do { configuration = try MappedFile(path: path) } catch {
            throw AdapterError(.unreadable, "\(Self.configurationName): \(error.reason)")
        }
        guard configuration.bytes.count <= Self.maximumConfigurationByteCount else {
            throw AdapterError(
                .invalid,
                "\(Self.configurationName): larger than \(Self.maximumConfigurationByteCount) bytes"
            )
        }
        let names = Self.weightsNames.filter {
            FileManager.default.fileExists(atPath: directory.appending(path: $0).path)
        }
        weightsName = names.first ?? Self.weightsNames[0]
        weights =
            names.count > 1
            ? .failure(
                AdapterError(.invalid, "\(names.joined(separator: " and ")) are both there"))
            : Self.openWeights(directory, weightsName)
    }

    private static func openWeights(
        _ directory: URL, _ weightsName: String
    ) -> Result<MappedFile, AdapterError> {
        let path = directory.appending(path: weightsName).path
        guard FileManager.default.fileExists(atPath: path) else {
            return .failure(AdapterError(.unreadable, missingWeights(directory)))
        }
        do { return .success(try MappedFile(path: path)) } catch {
            return .failure(AdapterError(.invalid, "\(weightsName): \(error.reason)"))
        }
    }

    private static func missingWeights(_ directory: URL) -> String {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
        for (pickle, advice) in [
            ("adapter_model.bin", "save the adapter as \(weightsNames[0])"),
            ("pytorch_adapter.bin", "save the adapter with use_safetensors=True"),
        ] where names.contains(pickle) {
            return "\(pickle) is a pickle, which can run code when it is read; \(advice)"
        }
        return "\(weightsNames[0]): is missing"
    }

    func parsedConfiguration() throws(StrictJSON.ParseError) -> StrictJSON {
        try StrictJSON(parsing: configuration.bytes, takesLoneSurrogates: false)
    }

    static func tensors(
        of weights: MappedFile
    ) throws(SafetensorsError) -> [String: SafetensorsFile.Tensor] {
        try SafetensorsFile(weights, maximumHeaderByteCount: maximumHeaderByteCount).tensors
    }

    /// - Throws: `AdapterError` of kind `damaged` where a file's bytes are others.
    func check(_ expected: AdapterChecksums) throws(AdapterError) {
        let weights = try weights.get()
        let pairs = [
            (Self.configurationName, configuration, expected.configuration),
            (weightsName, weights, expected.weights),
        ]
        for (name, file, checksum) in pairs where ContentChecksum(of: file.bytes) != checksum {
            throw AdapterError(.damaged, "\(name): has other bytes than were checked at its upload")
        }
    }

    /// - Throws: `AdapterError` of kind `damaged` where a file was changed while it was read.
    func checkUnchanged() throws(AdapterError) {
        for file in [configuration, try weights.get()]
        where FileIdentity(path: file.path) != file.identity {
            throw AdapterError(.damaged, "\(file.path): was changed while it was read")
        }
    }

    /// The header's bytes of the weights, which say where each tensor lies; cut off where it is
    /// longer than a header may be, and empty where the file is too short to be one.
    func weightsHeader() throws(AdapterError) -> UnsafeRawBufferPointer {
        let bytes = try weights.get().bytes
        guard bytes.count >= 8 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let declared = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        let limit = min(bytes.count - 8, Self.maximumHeaderByteCount)
        let count = Int(min(declared, UInt64(limit)))
        return UnsafeRawBufferPointer(rebasing: bytes[..<(8 + count)])
    }
}
