import LorryTensor

/// A mapped safetensors file, checked whole before any tensor is handed out.
///
/// Layout: 8 bytes little-endian header length, a JSON header naming each tensor's dtype, shape and
/// byte range, then the data. Source: the format description of huggingface/safetensors.
/// `SafetensorsPlaces` says what is refused.
public struct SafetensorsFile: Sendable {
    /// One tensor's place in the file.
    public struct Tensor: Sendable {
        public let name: String
        public let dtype: DType
        public let shape: [Int]
        /// Row-major, little-endian elements. Valid while the file is kept.
        public let bytes: UnsafeRawBuffer
        /// Where in the file they begin.
        let fileOffset: Int

        public var elementCount: Int { shape.reduce(1, *) }
        /// Nil where the elements are not floating-point numbers that weights may have.
        public var elementType: ElementType? { dtype.elementType }
    }

    /// Header bytes above this are refused, as by the reference library.
    package static let maximumHeaderByteCount = 100_000_000

    public let path: String
    public let tensors: [String: Tensor]
    public let metadata: [String: String]
    let file: MappedFile

    /// - Throws: `SafetensorsError` naming the file and the tensor or field at fault.
    public init(path: String) throws(SafetensorsError) {
        let file: MappedFile
        do {
            file = try MappedFile(path: path)
        } catch {
            throw SafetensorsError(file: path, reason: error.reason)
        }
        try self.init(file)
    }

    /// - Parameter maximumHeaderByteCount: how long the header may be. Its tensors' places take up
    ///   to seven times that in memory.
    init(
        _ file: MappedFile, maximumHeaderByteCount: Int = Self.maximumHeaderByteCount
    ) throws(SafetensorsError) {
        self.file = file
        path = file.path
        do {
            let places = try SafetensorsPlaces(
                of: file.bytes, maximumHeaderByteCount: maximumHeaderByteCount)
            tensors = places.byName.mapValues { place in
                Tensor(
                    name: place.name, dtype: place.dtype, shape: place.shape,
                    bytes: UnsafeRawBuffer(
                        bytes: UnsafeRawBufferPointer(rebasing: file.bytes[place.range]),
                        owner: file),
                    fileOffset: place.range.lowerBound)
            }
            metadata = places.metadata
        } catch {
            throw SafetensorsError(file: file.path, reason: error.reason)
        }
    }
}

/// Read-only bytes together with the mapping that keeps them valid.
public struct UnsafeRawBuffer: @unchecked Sendable {
    // Safe because the bytes are never written and `owner` outlives every use of them.
    public let bytes: UnsafeRawBufferPointer
    let owner: MappedFile

    init(bytes: UnsafeRawBufferPointer, owner: MappedFile) {
        self.bytes = bytes
        self.owner = owner
    }

    public var count: Int { bytes.count }

    /// Whether a condition holds of all pieces, of so many bytes each but for the last. The pages
    /// that it has read leave memory, where they were brought from the file.
    func allSatisfy(
        ofPieces byteCount: Int, _ condition: (UnsafeRawBufferPointer) -> Bool
    ) -> Bool {
        for start in stride(from: 0, to: bytes.count, by: byteCount) {
            let piece = UnsafeRawBufferPointer(
                rebasing: bytes[start..<min(start + byteCount, bytes.count)])
            defer { owner.letGo(of: piece) }
            guard condition(piece) else { return false }
        }
        return true
    }

    /// The name of the file that they are of.
    var fileName: String { owner.path.split(separator: "/").last.map(String.init) ?? owner.path }
}

/// A safetensors file that is damaged or not what it should be.
public struct SafetensorsError: Error, CustomStringConvertible, Sendable {
    public let file: String
    public let reason: String
    public var description: String { "\(file): \(reason)" }
}

extension SafetensorsFile {
    /// The element types of the format, by their names in the header.
    public enum DType: String, Sendable {
        case f64 = "F64"
        case f32 = "F32"
        case f16 = "F16"
        case bf16 = "BF16"
        case i64 = "I64"
        case i32 = "I32"
        case i16 = "I16"
        case i8 = "I8"
        case u64 = "U64"
        case u32 = "U32"
        case u16 = "U16"
        case u8 = "U8"
        case bool = "BOOL"

        var byteCount: Int {
            switch self {
            case .f64, .i64, .u64: 8
            case .f32, .i32, .u32: 4
            case .f16, .bf16, .i16, .u16: 2
            case .i8, .u8, .bool: 1
            }
        }

        var elementType: ElementType? {
            switch self {
            case .f32: .f32
            case .f16: .f16
            case .bf16: .bf16
            default: nil
            }
        }
    }
}
