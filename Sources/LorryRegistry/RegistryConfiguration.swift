import Foundation

/// Bounds on one upload or imported folder; sizes in bytes.
public struct UploadLimits: Sendable, Equatable {
    /// The body as it arrives, compressed or not.
    public var maxBodyByteCount = 4 << 30
    /// `adapter_model.safetensors` or `adapter.safetensors`.
    public var maxWeightsByteCount = 4 << 30
    /// `adapter_config.json`.
    public var maxConfigurationByteCount = 1 << 20
    /// `tokenizer.json`.
    public var maxTokenizerByteCount = 64 << 20
    /// Any other file, each.
    public var maxOtherFileByteCount = 4 << 20
    /// Headers in an archive, folders and extended headers included; files that come as parts.
    public var maxEntryCount = 64
    /// Expanded bytes per byte of a gzip body, beyond `freeExpansionByteCount`.
    public var maxExpansionRatio = 100
    /// Expanded bytes that no ratio is asked of: small adapters with many zeros are no bomb.
    public var freeExpansionByteCount = 16 << 20

    public init() {}
}

public struct RegistryConfiguration: Sendable {
    public var limits = UploadLimits()
    /// Names that no adapter may take, such as the base model's.
    public var reservedNames: Set<String> = []
    /// Versions kept per name for rollback; the one unused for longest goes first.
    public var maxVersionsPerName = 16
    /// Uploads under way at once; one more is `busy`. One tenant may have half of them.
    public var maxOpenUploads = 32
    /// Other names that one adapter may have; each change of the adapter writes them again.
    public var maxAliasesPerName = 64
    /// Why a stored version's files do not fit the base model of this start, nil if they do. Asked
    /// once per version at start: the directory may have been filled under another base model.
    public var misfit: @Sendable (_ folder: URL) -> String? = { _ in nil }

    public init() {}
}
